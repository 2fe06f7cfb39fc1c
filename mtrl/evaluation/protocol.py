"""Running an evaluation: fixed starts, equal for every policy, so that results are paired."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np

from mtrl import registry
from mtrl.errors import ConfigError
from mtrl.rollout import Acting, EpisodeJob, ExecutionChanges, JobResult, PolicySnapshot, Rollouts
from mtrl.structured import SEED, Checked, Range, at_least
from mtrl.tasks import MultimodalSuite, Split, TaskSet, start_id

from .broken import BrokenEpisode
from .pairs import left_out
from .provenance import Provenance
from .results import EpisodeResult, EvaluationResult, PolicyReference, from_episodes


@dataclass(frozen=True)
class EvaluationConfig(Checked, place="evaluation"):
    """The protocol of an evaluation."""

    episodes: Annotated[int, at_least(1)] = 50
    """Starts per task, at least 1; 50 for a quick look, 200 to publish."""
    split: Annotated[str, ("train", "validation", "test")] = "test"
    """Family of starts: "test", "validation" or "train"."""
    seed: Annotated[int, SEED] = 0
    """Seed of the policy's own random numbers, the same for every policy, 0 to 2^32 - 1."""
    copies: Annotated[int, at_least(1)] = 10
    """Environments stepped side by side per job, at least 1; part of the protocol, because batch size
    can change rounding."""
    confidence: Annotated[float, Range(0, 1, includes_low=False, includes_high=False)] = 0.95
    """Level of the intervals, in (0, 1)."""
    plan: bool = True
    """Whether a policy that plans in evaluation (`agent.planning.evaluate`) does so; without, its prior acts,
    and names of results end in "-prior"."""
    strict: bool = False
    """Refuse a result of which an episode broke; otherwise those are listed, and all others count."""
    random: bool = False
    """Whether a run evaluates random play too, on the same starts, as the level to be better than."""

    constant: bool = False
    """Whether a run evaluates the best constant action of every task too. It is chosen on validation starts,
    among all indices, or no action and each actuator at either end of its range."""

    execution: ExecutionChanges = field(default_factory=ExecutionChanges)
    """How policies of action chunks carry them out, where it is not as they were trained: for example
    `execution.delay=4` as if planning took four decisions."""

    ADDED: ClassVar[tuple[str, ...]] = ("strict", "constant", "execution")
    """Fields that older files lack."""


def evaluation_jobs(
    tasks: TaskSet, config: EvaluationConfig, *, record: Collection[int] = ()
) -> list[EpisodeJob]:
    """One job per task with all its starts; episodes never end on success.

    `record` lists the task indices whose observations are kept.
    """
    split = Split[config.split.upper()]
    starts = tuple(start_id(split, index) for index in range(config.episodes))
    return [
        EpisodeJob(
            task_index=k,
            starts=starts,
            seed=config.seed,
            acting=Acting(plan=config.plan),
            copies=config.copies,
            record=k in record,
            keep_going=True,
        )
        for k in range(len(tasks))
    ]


def evaluate(
    rollouts: Rollouts,
    tasks: TaskSet,
    snapshot: PolicySnapshot,
    config: EvaluationConfig,
    reference: PolicyReference,
    provenance: Provenance,
    *,
    record: Collection[int] = (),
    on_result: Callable[[JobResult], None] | None = None,
) -> EvaluationResult:
    """Plays every start of every task and aggregates; `on_result` sees each task as it is done, with
    observations for the task indices in `record`.

    An episode that a fault ends is listed as broken, and so are all episodes of a task that is quarantined,
    as one whose simulator ends its process is. Raises ConfigError for one with `config.strict`, and where
    every episode of every task broke.
    """
    ending = [task.name for task in tasks if task.end_on_success]
    if ending:
        raise ConfigError(f"evaluation never ends on success; end_on_success is set for {', '.join(ending)}")
    episodes: list[EpisodeResult] = []
    broken: list[BrokenEpisode] = []
    jobs = evaluation_jobs(tasks, config, record=record)
    for result in rollouts.run(jobs, snapshot, on_result=on_result):
        name = tasks[result.job.task_index].name
        episodes += [
            EpisodeResult(
                task=name,
                start=summary.start,
                episode_return=summary.episode_return,
                success_any=summary.success_any,
                success_end=summary.success_end,
                length=summary.length,
                terminated=summary.terminated,
                truncated=summary.truncated,
                first_success=summary.first_success,
            )
            for summary in result.summaries
        ]
        broken += [BrokenEpisode(name, one.start, one.fault(name).cause) for one in result.broken]
    played = {episode.task for episode in episodes} | {episode.task for episode in broken}
    for job in jobs:
        name = tasks[job.task_index].name
        if name not in played:
            cause = rollouts.quarantined[job.task_index]
            broken += [BrokenEpisode(name, start, cause) for start in job.starts]
    if config.strict and broken:
        raise ConfigError(
            f"{len(broken)} of {len(episodes) + len(broken)} episodes broke, which evaluation.strict=true "
            f"refuses: {left_out(broken)}. The first: {broken[0].cause}"
        )
    return from_episodes(
        tasks,
        episodes,
        policy=reference,
        split=Split[config.split.upper()],
        seed=config.seed,
        provenance=provenance,
        confidence=config.confidence,
        broken=broken,
    )


def modes_of(tasks: TaskSet, result: JobResult) -> dict[str, Any]:
    """Which mode of a multimodal task each successful episode shows, and every path for a figure."""
    task = tasks[result.job.task_index].listed
    suite = registry.suite(task.suite)
    assert isinstance(suite, MultimodalSuite) and result.episodes is not None
    offsets = result.episodes.offsets
    states = result.episodes.observations["state"].astype(np.float32, copy=False)
    counts = dict.fromkeys(suite.modes(task), 0)
    paths = []
    for e, summary in enumerate(result.summaries):
        episode = states[offsets[e] + e : offsets[e + 1] + e + 1]
        paths.append([[round(float(v), 4) for v in point] for point in suite.plan_view(task, episode)])
        if summary.success_any:
            counts[suite.mode(task, episode)] += 1
    x, y, radius = suite.obstacle(task)
    return {"successes": counts, "paths": paths, "obstacle": {"x": x, "y": y, "radius": radius}}
