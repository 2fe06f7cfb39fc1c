"""What ranks do in test_grpo_ranks: rounds of GRPO, each rank playing its slice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mtrl.agents.grpo import GRPOAgent
from mtrl.agents.grpo.config import AdvantageConfig, RegularisationConfig, ReturnConfig, SamplerConfig
from mtrl.agents.ppo import AGENT as PPO
from mtrl.agents.ppo import EpisodeConfig, PPOAgent, PPOConfig
from mtrl.gradients import SurgeryConfig
from mtrl.reducer import Reducer

from ..ranks import main
from .grpo_made import MIXED, SMALL, agent_of, group_of, played

ONE = {"minibatches": 1, "epochs": 2}
"""Every minibatch is the whole round, so that two ranks compute what one does."""
CASES: dict[str, dict[str, Any]] = {
    "plain": ONE,
    "weights": {
        **ONE, "sampler": SamplerConfig(kind="weights", filter=True, oversampling=1.5, refills=1),
        "advantage": AdvantageConfig(scale="task", normalise_tasks=True),
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


def critics(reducer: Reducer) -> tuple[dict[str, Any], np.ndarray]:
    """Two rounds of PPO by whole episodes."""
    config = PPOConfig(
        SMALL.network, returns=ReturnConfig(), episodes=EpisodeConfig(6, 3), epochs=2, minibatches=1
    )
    agent = PPOAgent(config, MIXED, 5, rank=reducer.rank, ranks=reducer.size)
    metrics = []
    for _ in range(2):
        policy = PPO.policy(agent.snapshot("collect"), MIXED)
        for request in list(agent.request(reducer))[reducer.rank :: reducer.size]:
            agent.ingest(group_of(MIXED, request, policy, (0, 3, 7), (0.1, 0.2, 0.4)))
        assert agent.due(1, reducer) == 1
        metrics.append(dict(agent.update(reducer)))
    weights = torch.cat([p.detach().flatten() for p in agent._named.values()])
    return {"metrics": metrics}, weights.double().numpy()


def learners(reducer: Reducer) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    found["ppo"], found["ppo/weights"] = critics(reducer)
    for name, changes in CASES.items():
        found[name], found[f"{name}/weights"] = outcome(reducer, changes)
    return found


if __name__ == "__main__":
    main({"learners": learners}, timeout=30.0)
