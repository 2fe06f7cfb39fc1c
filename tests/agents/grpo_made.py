"""Made-up groups and small GRPO agents for tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from mtrl import registry
from mtrl.agents.grpo import GroupPolicy, GRPOAgent, GRPOConfig
from mtrl.agents.grpo.config import PolicyConfig, SamplerConfig
from mtrl.nn import TorsoConfig
from mtrl.reducer import ALONE, Reducer
from mtrl.rollout import EpisodeGroup, EpisodeSummary, GroupRequest, Version
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Score, Task, TaskSet

SMALL = GRPOConfig(
    network=PolicyConfig(torso=TorsoConfig(width=16, depth=1), normalise_until=0),
    groups=6,
    group_size=4,
    epochs=2,
    minibatches=2,
)


class MadeSuite:
    """Stands for a suite whose episodes the tests make up."""

    has_experts, environment_megabytes = False, 0.0

    def __init__(self, name: str, supports_starts: bool) -> None:
        self.name, self.supports_starts = name, supports_starts

    def names(self) -> tuple[str, ...]:
        return ()

    sets = task = environment = expert = names


@contextmanager
def made_suites() -> Iterator[None]:
    """The suites of the made-up tasks, known to the registry while the block lasts."""
    suites = [MadeSuite("grouped", True), MadeSuite("startless", False)]
    for suite in suites:
        registry.register("suite", suite.name, suite)
    try:
        yield
    finally:
        for suite in suites:
            registry.unregister("suite", suite.name)


def task_of(
    name: str, action: ActionSpec, state: int = 3, score: str = "success", suite: str = "grouped"
) -> Task:
    return Task(
        name=f"{suite}/{name}",
        observation=ObservationSpec(state=state),
        action=action,
        simulator_rate_hz=10.0,
        action_repeat=1,
        horizon_decisions=10,
        score=Score(score, high=20.0) if score != "raw" else Score("return"),
        reward_version="1",
    )


MIXED = TaskSet(
    [
        task_of("push", ActionSpec(continuous=2)),
        task_of("jump", ActionSpec(discrete=3), 2),
        task_of("pull", ActionSpec(continuous=1), score="return"),
    ]
)


def group_of(
    tasks: TaskSet,
    request: GroupRequest,
    policy: GroupPolicy,
    outcome: Sequence[int],
    rewards: Sequence[float] | None = None,
) -> EpisodeGroup:
    """A group that `policy` acts in on random states; episode e succeeds at decision `outcome[e]`, which ends
    it, or never (0). `rewards` are paid at every decision of an episode.
    """
    k, layout = request.task_index, tasks.layout
    spec = layout.observations[k]
    draws = np.random.default_rng([request.start, request.seed, k])
    summaries, parts = [], []
    for e, success in enumerate(outcome):
        length = success or 10
        state, ended = policy.initial_state(1), np.ones(1, bool)
        generator = np.random.default_rng([request.start, e])
        rows = []
        for _ in range(length):
            seen = layout.zeros(1)
            seen["state"][0, : spec.state] = draws.normal(size=spec.state)
            action = policy.act(
                seen, np.array([k]), state, ended, acting=request.acting, generators=[generator]
            )
            state, ended = action.state, np.zeros(1, bool)
            rows.append((seen["state"][0, : spec.state], action))
        pay = np.full(length, 0.0 if rewards is None else rewards[e], np.float32)
        won = np.arange(1, length + 1) == success
        summaries.append(
            EpisodeSummary.of(pay, won, task_index=k, start=request.start, repeat=e, terminated=False)
        )
        parts.append((rows, pay, won))
    steps = [action for rows, _, _ in parts for _, action in rows]
    observations = [np.stack([*(seen for seen, _ in rows), rows[-1][0]]) for rows, _, _ in parts]
    lengths = [len(rows) for rows, _, _ in parts]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ends = np.isin(np.arange(offsets[-1]), offsets[1:] - 1)
    return EpisodeGroup(
        task_index=k,
        policy_version=Version(0, policy.version),
        summaries=tuple(summaries),
        offsets=offsets,
        observations={"state": np.concatenate(observations)},
        continuous=np.concatenate([a.continuous for a in steps])[:, : layout.actions[k].continuous],
        discrete=np.concatenate([a.discrete for a in steps]),
        reward=np.concatenate([pay for _, pay, _ in parts]),
        terminated=np.zeros(len(ends), bool),
        truncated=ends,
        success=np.concatenate([won for _, _, won in parts]),
        extras={name: np.concatenate([a.extras[name] for a in steps]) for name in steps[0].extras},
    )


def agent_of(
    tasks: TaskSet = MIXED,
    config: GRPOConfig = SMALL,
    seed: int = 1,
    reducer: Reducer = ALONE,
    **changes: object,
) -> GRPOAgent:
    config = dataclasses.replace(config, **changes)  # type: ignore[arg-type]
    with made_suites():
        return GRPOAgent(config, tasks, seed, rank=reducer.rank, ranks=reducer.size)


def played(
    agent: GRPOAgent, tasks: TaskSet = MIXED, reducer: Reducer = ALONE, outcome: Sequence[int] = (0, 3, 0, 7)
) -> list[GroupRequest]:
    """Requests, plays and hands in this rank's slice of a round; returns the whole round's requests."""
    policy = registry.load("agent", "grpo").policy(agent.snapshot("collect"), tasks)
    requests = list(agent.request(reducer))
    for request in requests[reducer.rank :: reducer.size]:
        pay = [0.1 * e for e in range(len(outcome))]
        agent.ingest(group_of(tasks, request, policy, outcome, pay))
    return requests


def filtered(**changes: object) -> SamplerConfig:
    return SamplerConfig(filter=True, **changes)  # type: ignore[arg-type]
