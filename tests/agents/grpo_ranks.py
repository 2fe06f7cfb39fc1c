"""What ranks do in test_grpo_ranks: rounds of GRPO, each rank playing its slice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtrl.agents.grpo import GRPOAgent
from mtrl.agents.grpo.config import AdvantageConfig, RegularisationConfig, SamplerConfig
from mtrl.gradients import SurgeryConfig
from mtrl.reducer import Reducer

from ..ranks import main
from .grpo_made import agent_of, played

ONE = {"minibatches": 1, "epochs": 2}
"""Every minibatch is the whole round, so that two ranks compute what one does."""
CASES: dict[str, dict[str, Any]] = {
    "plain": ONE,
    "task": {**ONE, "advantage": AdvantageConfig(scale="task", normalise_tasks=True)},
    "weights": {
        **ONE, "sampler": SamplerConfig(kind="weights", filter=True, oversampling=1.5, refills=1),
        "regularisation": RegularisationConfig(kl=0.1, entropy=0.01, smoothing=0.05),
    },
    "pcgrad": {**ONE, "gradients": SurgeryConfig("pcgrad", row_method="backward")},
    "parts": {"groups": 3, "minibatches": 4},
}  # fmt: skip


def trained(reducer: Reducer, changes: Mapping[str, Any]) -> tuple[GRPOAgent, list[dict[str, float]]]:
    agent = agent_of(seed=5, reducer=reducer, **changes)
    metrics = []
    for _ in range(2):
        while not agent.due(1, reducer):
            played(agent, reducer=reducer)
        metrics.append(dict(agent.update(reducer)))
    return agent, metrics


def outcome(reducer: Reducer, changes: Mapping[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    agent, metrics = trained(reducer, changes)
    tensors = agent.snapshot().tensors
    flat = np.concatenate([np.asarray(tensors[name], np.float64).ravel() for name in sorted(tensors)])
    return {"metrics": metrics, "digest": hashlib.sha256(flat.tobytes()).hexdigest()}, flat


def learners(reducer: Reducer) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for name, changes in CASES.items():
        found[name], found[f"{name}/weights"] = outcome(reducer, changes)
    return found


if __name__ == "__main__":
    main({"learners": learners}, timeout=30.0)
