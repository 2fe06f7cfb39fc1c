"""Small made-up tasks, fragments and SAC agents for tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from mtrl.agents.sac import NetworkConfig, NormalisationConfig, SACAgent, SACConfig
from mtrl.data import ReplayConfig
from mtrl.nn import TaskEmbeddingConfig, TorsoConfig
from mtrl.reducer import ALONE, Reducer
from mtrl.rollout import Fragment, Version
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Score, Task, TaskSet

CONTINUOUS = ActionSpec(continuous=2)
DISCRETE = ActionSpec(discrete=3)


def torso(width: int, **changes: object) -> TorsoConfig:
    return TorsoConfig(**{"width": width, "depth": 1, "layer_norm": True, "norm_affine": False, **changes})  # type: ignore[arg-type]


SMALL = SACConfig(
    network=NetworkConfig(torso=torso(32), critic="categorical", bins=51, value_range=10.0),
    normalisation=NormalisationConfig(refresh_at=(20,)),
    replay=ReplayConfig(capacity=2000),
    batch_size=16,
    learning_rate=3e-3,
)


def task_of(
    name: str, action: ActionSpec, state: int = 2, pixels: tuple[int, int, int] | None = None
) -> Task:
    return Task(
        name=f"made/{name}",
        observation=ObservationSpec(state=state or None, pixels=pixels),
        action=action,
        simulator_rate_hz=10.0,
        action_repeat=1,
        horizon_decisions=10,
        score=Score("return"),
        reward_version="1",
    )


LEARNED_TASKS = torso(16, depth=2, layer_norm=False, embedding=TaskEmbeddingConfig("learned", 8))

MIXED = TaskSet(
    [task_of("push", CONTINUOUS, 3), task_of("jump", DISCRETE, 2), task_of("pull", ActionSpec(continuous=1))]
)


def fragment_of(
    tasks: TaskSet,
    k: int,
    steps: int,
    *,
    reward: Sequence[float] | None = None,
    ends: Mapping[int, str] | None = None,
    seed: int = 0,
    constant: bool = False,
) -> Fragment:
    """One copy with random observations and actions; `ends` maps decisions to how an episode ended."""
    generator, layout, ends = np.random.default_rng(seed), tasks.layout, dict(ends or {})
    spec, action = layout.observations[k], layout.actions[k]
    places = sorted(ends)
    observations, finals = {}, {}
    for bucket in spec.buckets:
        for into, count in ((observations, steps + 1), (finals, len(places))):
            shape = (
                (count, 1, *layout.bucket_shape(bucket))
                if into is observations
                else (count, *layout.bucket_shape(bucket))
            )
            rows = np.zeros(shape, layout.bucket_dtype(bucket))
            if bucket == "state":
                rows[..., : spec.state] = (
                    1.0 if constant else generator.normal(size=(*shape[:-1], spec.state))
                )
            else:
                rows[:] = generator.integers(0, 256, size=shape)
            into[bucket] = rows
    continuous = np.zeros((steps, 1, layout.continuous_size), np.float32)
    continuous[..., : action.continuous] = generator.uniform(-1, 1, (steps, 1, action.continuous))
    ended = {
        how: np.isin(np.arange(steps), [t for t in places if ends[t] == how])[:, None]
        for how in ("terminated", "truncated")
    }
    values = generator.normal(size=steps) if reward is None else np.array(reward)
    return Fragment(
        task_index=k,
        policy_version=Version(),
        observations=observations,
        continuous=continuous,
        discrete=generator.integers(0, max(1, action.discrete), size=(steps, 1)),
        reward=values.astype(np.float32)[:, None],
        terminated=ended["terminated"],
        truncated=ended["truncated"],
        success=np.zeros((steps, 1), bool),
        start_id=np.zeros((steps + 1, 1), np.int64),
        episode_id=np.searchsorted(places, np.arange(steps + 1))[:, None],
        final_index=np.array([(t, 0) for t in places], np.int64).reshape(-1, 2),
        final_observations=finals,
    )


def agent_of(tasks: TaskSet = MIXED, config: SACConfig = SMALL, seed: int = 1, **changes: object) -> SACAgent:
    agent = SACAgent(dataclasses.replace(config, **changes), tasks, seed)  # type: ignore[arg-type]
    for k in range(len(tasks)):
        agent.ingest(fragment_of(tasks, k, 40, ends={9: "truncated", 19: "terminated"}, seed=k))
    return agent


def update(agent: SACAgent, reducer: Reducer = ALONE) -> Mapping[str, float]:
    """One update on what was ingested so far."""
    agent.due(0, reducer)
    return agent.update(reducer)


def sums_of(agent: SACAgent, reducer: Reducer = ALONE) -> dict[str, torch.Tensor]:
    """The gradients of the next update, of losses summed over tasks: "critic.NAME", where it is the actor's
    turn "actor.NAME", and "temperature.log".
    """
    agent.due(0, reducer)
    agent._compute_gradients(agent._context(reducer))
    acting = agent.updates % agent._config.actor_every == 0
    found = {}
    for name in ("critic", "actor") if acting else ("critic",):
        weights = agent._groups[name].weights
        pairs = zip(weights.named, weights.split(weights.gradient), strict=True)
        found |= {f"{name}.{key}": gradient.clone() for key, gradient in pairs}
    if agent._temperature_gradient is not None:
        found["temperature.log"] = agent._temperature_gradient
    return found


def resume(agent: SACAgent, original: SACAgent) -> None:
    """Goes on where `original` is."""
    agent.restore(original.shared_state(), original.local_state())
