"""The world model compiled, in bf16, and on another device than the CPU."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtrl.agents.world_model import WorldModelAgent
from mtrl.agents.world_model.config import LossConfig, PlanningConfig
from mtrl.agents.world_model.learning import Losses
from mtrl.agents.world_model.networks import WorldModel
from mtrl.errors import ResourceError
from mtrl.gradients import SurgeryConfig
from mtrl.reducer import ALONE
from mtrl.rollout import Acting, generator_for
from mtrl.training import load_state, save_state

from .sac_made import MIXED, fragment_of
from .test_world_model_agent import SMALL, agent_of, weights

CLONING = {
    "losses": LossConfig(cloning=1.0),
    "planning": PlanningConfig(collect="plan", samples=8, policy_samples=2, elites=4),
}


def fed(tasks: int = len(MIXED), **changes: object) -> WorldModelAgent:
    """An agent with experience of the first tasks."""
    agent = WorldModelAgent(dataclasses.replace(SMALL, diagnostics_every=0, **changes), MIXED, 1)  # type: ignore[arg-type]
    for k in range(tasks):
        agent.ingest(fragment_of(MIXED, k, 40, ends={9: "terminated"}, seed=k))
    agent.due(0, ALONE)
    return agent


@pytest.mark.parametrize("counts", [[3], pytest.param([1, 2, 3], marks=pytest.mark.slow)])
def test_the_losses_are_one_graph_each_for_any_number_of_tasks(
    counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = fed(0)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
        whole = fed(0, compile=True)
    for count in counts:
        for agent in (plain, whole):
            for k in range(count):
                agent.ingest(fragment_of(MIXED, k, 40, ends={9: "terminated"}, seed=count + k))
            agent.due(0, ALONE)
        assert whole.update(ALONE) == plain.update(ALONE)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", ["sum", "pcgrad"])
def test_compiled_losses_give_the_same_updates(method: str) -> None:
    plain, fast = (fed(gradients=SurgeryConfig(method), compile=one) for one in (False, True))
    for _ in range(3):
        expected, found = plain.update(ALONE), fast.update(ALONE)
    assert found == pytest.approx(expected, rel=1e-2, abs=1e-4)


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ResourceError, match="no-such-compiler is not there; install it"):
        fed(compile=True)


def test_bf16_stays_close_to_fp32() -> None:
    plain, half = fed(), fed(precision="bf16")
    for _ in range(3):
        expected, found = plain.update(ALONE), half.update(ALONE)
    assert found != expected
    assert found == pytest.approx(expected, rel=0.05, abs=0.05)
    assert all(values.dtype != np.float16 for values in weights(half).values())


def test_the_losses_stay_on_the_device_of_their_batch() -> None:
    """The device "meta" has shapes alone, and refuses sums and products with tensors of the CPU."""
    agent = fed(**CLONING)
    agent.update(ALONE)
    model = WorldModel(MIXED.layout, agent._config).to("meta")
    batch = moved(agent._batch, torch.Tensor.to, "meta")
    losses = Losses(model, copy.deepcopy(model.q_body), copy.deepcopy(model.q_out))
    tasks, _, samples = batch.weight.shape
    noise = torch.empty(tasks, samples, MIXED.layout.continuous_size, device="meta")
    gates = model.experts.gates(batch.task)
    found = losses._unrolled(batch, gates, torch.empty(2, dtype=torch.int64, device="meta"), noise)
    improved = losses._improved(batch, found.first, noise)
    (found.losses.sum() + improved.losses.sum()).backward()
    assert all(value.is_meta for value in (*found.facts.values(), *improved))


def moved(value: Any, how: Callable[..., torch.Tensor], *where: object) -> Any:
    """A copy of nested dataclasses, mappings and tuples with every tensor moved."""
    if isinstance(value, torch.Tensor):
        return how(value, *where)
    if isinstance(value, dict):
        return {key: moved(entry, how, *where) for key, entry in value.items()}
    if isinstance(value, tuple):
        return tuple(moved(entry, how, *where) for entry in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return dataclasses.replace(
            value, **{f.name: moved(getattr(value, f.name), how, *where) for f in fields}
        )
    return value


@pytest.mark.cuda
@pytest.mark.parametrize("fast", [False, True], ids=["written", "compiled"])
@pytest.mark.parametrize("method", ["sum", "pcgrad"])
def test_a_gpu_learns_and_continues(fast: bool, method: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "device": "cuda", "precision": "auto", "compile": fast, "gradients": SurgeryConfig(method),
        "size": "S",
    }  # fmt: skip
    agent = agent_of(diagnostics_every=2, **changes)
    for _ in range(4):
        metrics = agent.update(ALONE)
    assert all(math.isfinite(value) for value in metrics.values())
    policy = agent.policy()
    action = policy.act(
        {"state": np.zeros((3, MIXED.layout.state_size), np.float32)},
        np.arange(3), policy.initial_state(3), np.ones(3, bool),
        acting=Acting(), generators=[generator_for(1, "x", c) for c in range(3)],
    )  # fmt: skip
    assert np.isfinite(action.continuous).all()
    save_state(tmp_path / "shared", agent.shared_state())
    save_state(tmp_path / "local", agent.local_state())
    resumed = agent_of(diagnostics_every=2, **changes)
    resumed.restore(load_state(tmp_path / "shared"), load_state(tmp_path / "local"))
    assert resumed.update(ALONE) == pytest.approx(dict(agent.update(ALONE)), rel=1e-2, abs=1e-2)
