"""What ranks do in test_world_model_ranks: world models on experience of their own."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtrl.agents.world_model import WorldModelAgent, WorldModelConfig
from mtrl.agents.world_model.config import ExpertsConfig, LossConfig, PlanningConfig
from mtrl.agents.world_model.policy import plan_extras
from mtrl.data import ReplayConfig, Trajectories
from mtrl.errors import MtrlError
from mtrl.gradients import SurgeryConfig
from mtrl.reducer import Reducer
from mtrl.training import Datasets

from ..ranks import main
from .demonstrations import trajectories
from .sac_made import MIXED, fragment_of

SMALL = WorldModelConfig(batch_size=16, diagnostics_every=2)
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "pcgrad": {"gradients": SurgeryConfig("pcgrad")},
    "famo": {"gradients": SurgeryConfig("famo")},
    "bias": {"experts": ExpertsConfig(balance="bias")},
    "cloning": {"losses": LossConfig(cloning=1.0), "planning": PlanningConfig(collect="mixed")},
    "demonstrations": {"replay": ReplayConfig(capacity=1000, demonstrations=0.5)},
}


def digest(agent: WorldModelAgent) -> str:
    tensors = agent.snapshot().tensors
    return hashlib.sha256(
        b"".join(np.ascontiguousarray(tensors[k]).tobytes() for k in sorted(tensors))
    ).hexdigest()


def fed(reducer: Reducer, changes: Mapping[str, Any], lacking: bool = False) -> WorldModelAgent:
    config = dataclasses.replace(SMALL, **changes)
    agent = WorldModelAgent(config, MIXED, 5, rank=reducer.rank, ranks=reducer.size)
    if config.replay.demonstrations > 0:
        agent.ingest(Datasets({0: demonstrations(reducer.rank)}))
    for k in range(len(MIXED)):
        if not (lacking and reducer.rank == 1 and k == 1):
            steps = 40 + 9 * reducer.rank
            fragment = fragment_of(MIXED, k, steps, ends={9: "terminated"}, seed=10 * reducer.rank + k)
            agent.ingest(dataclasses.replace(fragment, extras=plans(config, k, steps)))
    agent.due(0, reducer)
    return agent


def plans(config: WorldModelConfig, k: int, steps: int) -> dict[str, np.ndarray]:
    """What the policy that collected planned: every other decision of a task, the same action always."""
    found = {extra.name: extra.filled(steps, 1) for extra in plan_extras(config, MIXED.layout)}
    if "planned" in found:
        found["planned"][::2] = 0.0
        found["planned"][::2, :, 4 if MIXED.layout.discrete_tasks[k] else 0] = 1.0
    return found


def demonstrations(rank: int) -> Trajectories:
    """Rewarded episodes of the first task, this rank's own."""
    draws = np.random.default_rng(rank)
    states = draws.normal(size=(6 * 11, 3)).astype(np.float32)
    made = trajectories(states, draws.uniform(-1, 1, (60, 2)).astype(np.float32), episodes=6, length=10)
    return dataclasses.replace(made, rewards=np.full(60, 1.0 + rank, dtype=np.float32))


def played(reducer: Reducer, changes: Mapping[str, Any], lacking: bool = False) -> dict[str, Any]:
    agent = fed(reducer, changes, lacking)
    before = digest(agent)
    metrics = [dict(agent.update(reducer)) for _ in range(4)]
    return {"metrics": metrics, "digest": digest(agent), "moved": digest(agent) != before}


def failing(reducer: Reducer) -> list[str]:
    agent = fed(reducer, {})
    if reducer.rank == 1:
        agent.ingest(fragment_of(MIXED, 0, 3, reward=[1.0, math.nan, 1.0]))
    try:
        agent.due(0, reducer)
    except MtrlError as error:
        return [type(error).__name__, str(error)]
    return []


def learners(reducer: Reducer) -> Mapping[str, Any]:
    facts: dict[str, Any] = {name: played(reducer, changes) for name, changes in CASES.items()}
    facts["lacking"] = played(reducer, {}, lacking=True)
    facts["failing"] = failing(reducer)
    return facts


if __name__ == "__main__":
    main({"learners": learners}, timeout=30.0)
