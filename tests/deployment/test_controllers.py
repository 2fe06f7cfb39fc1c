"""Every agent that acts on images or chooses is exported: torch, the graph and the evaluated policy agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from mtrl import registry
from mtrl.agents.grpo.config import PolicyConfig
from mtrl.agents.ppo import PPOConfig
from mtrl.agents.rllib import RLlibConfig
from mtrl.agents.rllib.policy import ActingNetwork
from mtrl.agents.sac import NetworkConfig, SACConfig
from mtrl.agents.sb3 import SB3Config
from mtrl.agents.sb3.algorithms import acting_tensors, network_of
from mtrl.deployment.artefact.export import controller_cases, controller_graph, require_policy_parity
from mtrl.nn import PixelEncoderConfig, TorsoConfig
from mtrl.rollout import PolicySnapshot, SharedSpace
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.structured import plain
from mtrl.tasks import Score, Task, TaskSet

IMAGE = (2, 36, 36)
TORSO, PIXELS = TorsoConfig(width=16, depth=1), PixelEncoderConfig(features=8)
OWN: dict[str, Any] = {
    "sac": SACConfig(network=NetworkConfig(torso=TORSO, pixels=PIXELS)),
    "ppo": PPOConfig(network=PolicyConfig(torso=TORSO, pixels=PIXELS, normalise_until=0)),
}


def task(name: str, observation: ObservationSpec, action: ActionSpec) -> Task:
    return Task(
        name=f"made/{name}",
        observation=observation,
        action=action,
        simulator_rate_hz=10.0,
        action_repeat=1,
        horizon_decisions=10,
        score=Score("return"),
        reward_version="1",
    )


CHOICES = [
    task("three", ObservationSpec(pixels=IMAGE), ActionSpec(discrete=3)),
    task("five", ObservationSpec(state=2, pixels=IMAGE), ActionSpec(discrete=5)),
]
VECTORS = [
    task("flat", ObservationSpec(state=4, pixels=IMAGE), ActionSpec(continuous=3)),
    task("seen", ObservationSpec(pixels=IMAGE), ActionSpec(continuous=1)),
]
STATES = [
    task("two", ObservationSpec(state=3), ActionSpec(discrete=2)),
    task("seven", ObservationSpec(state=2), ActionSpec(discrete=7)),
]


def own(name: str, tasks: TaskSet) -> PolicySnapshot:
    """Of an agent of ours, all weights drawn again: those of outputs begin at 0."""
    torch.manual_seed(0)
    snapshot = registry.load("agent", name).build(OWN[name], tasks, 1).snapshot("export")
    draws = np.random.default_rng(2)
    drawn = {
        key: draws.normal(0.0, 0.2, value.shape).astype(np.float32)
        if np.issubdtype(value.dtype, np.floating) and not key.startswith("observer.")
        else value
        for key, value in snapshot.tensors.items()
    }
    return PolicySnapshot(snapshot.kind, snapshot.config, drawn)


def sb3(algorithm: str, tasks: TaskSet) -> PolicySnapshot:
    config = SB3Config(algorithm=algorithm, net_arch=(16,))
    network = network_of(config, SharedSpace(tasks))
    weights = {name: value.numpy() for name, value in acting_tensors(config, network).items()}
    return PolicySnapshot("sb3", plain(config), weights)


def rllib(algorithm: str, tasks: TaskSet) -> PolicySnapshot:
    config = RLlibConfig(algorithm=algorithm, fcnet_hiddens=(16,))
    torch.manual_seed(0)
    network = ActingNetwork(config, SharedSpace(tasks))
    weights = {name: value.numpy().copy() for name, value in network.named_weights().items()}
    return PolicySnapshot("rllib", plain(config), weights)


CASES = {
    "sac-choices": (lambda tasks: own("sac", tasks), CHOICES),
    "sac-vectors": (lambda tasks: own("sac", tasks), VECTORS),
    "sac-mixed": (lambda tasks: own("sac", tasks), [*CHOICES, *VECTORS]),
    "ppo-mixed": (lambda tasks: own("ppo", tasks), [*CHOICES, *VECTORS]),
    "sb3-dqn": (lambda tasks: sb3("dqn", tasks), CHOICES),
    "sb3-ppo-choices": (lambda tasks: sb3("ppo", tasks), CHOICES),
    "sb3-ppo-vectors": (lambda tasks: sb3("ppo", tasks), VECTORS),
    "sb3-sac": (lambda tasks: sb3("sac", tasks), VECTORS),
    "sb3-dqn-states": (lambda tasks: sb3("dqn", tasks), STATES),
    "rllib-ppo-states": (lambda tasks: rllib("ppo", tasks), STATES),
    "rllib-sac-states": (lambda tasks: rllib("sac", tasks), STATES),
}


@pytest.mark.parametrize("case", CASES)
def test_the_graph_is_the_policy(case: str) -> None:
    """On images seen and images of noise; a choice must be the same one."""
    made, members = CASES[case]
    tasks = TaskSet(members)
    snapshot, layout = made(tasks), tasks.layout
    factory = registry.load("agent", snapshot.kind)
    controller = factory.controller(snapshot, tasks).requires_grad_(False).eval()
    draws = np.random.default_rng(1)
    states = [draws.normal(size=(9, one.observation.state or 0)) for one in tasks]
    images = [
        draws.integers(0, 256, (9 if one.observation.pixels else 0, *IMAGE), dtype=np.uint8) for one in tasks
    ]
    cases = controller_cases(controller, states, layout, 0, 8, images)
    assert require_policy_parity(factory.policy(snapshot, tasks), cases, layout) <= 1e-5
    graph = controller_graph(controller, layout)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    feeds = {name: values for name, values in cases.items() if name != "chunk"}
    (chunk,) = session.run(["chunk"], feeds)
    np.testing.assert_allclose(chunk, cases["chunk"], atol=1e-5)
    choices = chunk[:, 0, layout.continuous_size :]
    if layout.discrete_size:
        legal = layout.legal_mask[cases["task"]]
        assert (choices[~legal] == 0).all()
        taken = choices.argmax(1)[layout.discrete_tasks[cases["task"]]]
        assert len(set(taken.tolist())) > 1, "one that always chooses the same proves little"
