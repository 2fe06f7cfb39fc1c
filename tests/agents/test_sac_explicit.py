"""SAC's update with every derivative written out, against autograd."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch

from mtrl.agents.sac import ExplorationConfig, NetworkConfig, SACAgent
from mtrl.agents.sac.explicit import ExplicitGradientComputation
from mtrl.errors import DivergenceError
from mtrl.gradients import SurgeryConfig
from mtrl.nn import PixelEncoderConfig
from mtrl.spaces import ActionSpec
from mtrl.tasks import TaskSet

from .sac_made import CONTINUOUS, MIXED, agent_of, fragment_of, resume, sums_of, task_of, torso, update

ARMS = TaskSet(
    [
        task_of("push", CONTINUOUS, 3),
        task_of("pull", ActionSpec(continuous=1), 2),
        task_of("lift", ActionSpec(continuous=3), 4),
    ]
)
"""Tasks of different sizes, so that some action dimensions and state entries are not there."""


BUTTONS = TaskSet(
    [
        task_of("jump", ActionSpec(discrete=3), 2),
        task_of("duck", ActionSpec(discrete=5), 3),
        task_of("run", ActionSpec(discrete=2), 4),
    ]
)
"""Tasks that act by index, some indices of which are not there."""


def scalar(**changes: object) -> NetworkConfig:
    return NetworkConfig(torso=torso(16, **changes), critic="scalar")


def explicit(agent: SACAgent) -> bool:
    return agent._explicit is not None


def same_gradients(agents: Sequence[SACAgent]) -> None:
    """Compares those of two agents."""
    found, expected = (sums_of(agent) for agent in agents)
    assert list(found) == list(expected)
    losses, others = (agent._losses["critic_loss"] for agent in agents)
    torch.testing.assert_close(losses, others, rtol=1e-4, atol=1e-5)
    for name, gradient in expected.items():
        close = 1e-4 * float(gradient.norm()) + 1e-7
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=close, msg=name)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"network": scalar()},
        {"network": scalar(depth=3, layer_norm=False), "entropy_in_target": True},
        {"network": scalar(output="shared", task_input=False), "actor_every": 1},
        {"exploration": ExplorationConfig(initial_temperature=2.0), "entropy_in_target": True},
        {"network": scalar(kind="multi_head"), "bootstrap_truncated": False},
        {"network": dataclasses.replace(scalar(), critic_width=24)},
    ],
)
@pytest.mark.parametrize("shares", [None, [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
@pytest.mark.parametrize("tasks", [ARMS, MIXED, BUTTONS], ids=["arms", "mixed", "buttons"])
def test_it_learns_as_by_autograd(
    tasks: TaskSet, settings: Mapping[str, object], shares: list[float] | None
) -> None:
    agents = [agent_of(tasks, explicit=way, **settings) for way in (True, False)]
    assert [explicit(agent) for agent in agents] == [True, False]
    for agent in agents:
        if shares is not None:
            agent.set_task_shares(np.array(shares))
    for _ in range(4):
        same_gradients(agents)
        told = [update(agent) for agent in agents]
        assert told[0].keys() == told[1].keys()
        for name, value in told[1].items():
            assert told[0][name] == pytest.approx(value, rel=1e-2, abs=1e-4), name
        # Adam would take a step of the same size for the rounding error of a gradient near zero
        resume(agents[0], agents[1])


@pytest.mark.parametrize("tasks", [ARMS, MIXED, BUTTONS], ids=["arms", "mixed", "buttons"])
def test_in_half_precision_too(tasks: TaskSet) -> None:
    agents = [agent_of(tasks, explicit=way, precision="bf16") for way in (True, False)]
    same_gradients(agents)


def test_twins_that_agree_share_the_gradient() -> None:
    agents = [agent_of(ARMS, explicit=way, network=scalar()) for way in (True, False)]
    for agent in agents:
        with torch.no_grad():
            for parameter in agent._critic.parameters():
                parameter[1] = parameter[0]
    same_gradients(agents)


@pytest.mark.parametrize("head", ["_actor", "_critic"])
@pytest.mark.parametrize(
    ("tasks", "output"), [(ARMS, "continuous"), (MIXED, "continuous"), (MIXED, "discrete")]
)
def test_a_number_that_is_not_finite_is_told_as_by_autograd(head: str, tasks: TaskSet, output: str) -> None:
    told = []
    for way in (True, False):
        agent = agent_of(tasks, explicit=way)
        with torch.no_grad():
            getattr(agent, head).network.outputs[output].bias.fill_(torch.nan)
        with pytest.raises(DivergenceError) as caught:
            update(agent)
        told.append(str(caught.value))
    assert told[0] == told[1]


def test_a_frozen_weight_is_left_to_autograd() -> None:
    agent = agent_of(ARMS)
    agent._critic.network.torso.stack.linears[0].weight.requires_grad_(False)
    parts = (agent._config, agent._networks, agent._groups, agent._noise)
    assert ExplicitGradientComputation.of(*parts) is None


def test_a_batch_of_some_tasks_goes_by_autograd() -> None:
    agents = [agent_of(ARMS, explicit=way) for way in (True, False)]
    for agent in agents:
        # as if the last task had not been seen yet
        agent._replay = type(agent._replay)(ARMS, agent._config.replay)
        for k in (0, 1):
            agent.ingest(fragment_of(ARMS, k, 40))
        update(agent)
    ours, theirs = (agent.snapshot().tensors for agent in agents)
    assert explicit(agents[0]) and all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("tasks", "settings"),
    [
        (ARMS, {"gradients": SurgeryConfig(method="pcgrad")}),
        (ARMS, {"network": scalar(), "value_clip": 5.0}),
        (ARMS, {"network": NetworkConfig(torso=torso(16, kind="residual"))}),
        (
            TaskSet([task_of("see", CONTINUOUS, 2, (3, 36, 36))]),
            {"network": NetworkConfig(torso=torso(16), pixels=PixelEncoderConfig("drq", features=4))},
        ),
    ],
)
def test_what_is_not_written_out_goes_by_autograd(tasks: TaskSet, settings: Mapping[str, object]) -> None:
    assert not explicit(agent_of(tasks, **settings))
