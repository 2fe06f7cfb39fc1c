"""Collecting demonstrations: attempts in a fixed order, successes kept until there are enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from typing import Annotated

from mtrl.errors import ConfigError
from mtrl.rollout import Acting, EpisodeJob, Episodes, JobResult, NoiseConfig, PolicySnapshot, Rollouts
from mtrl.structured import Checked, at_least
from mtrl.tasks import Split, TaskSet, start_id

from .trajectories import Trajectories


@dataclass(frozen=True)
class DemonstrationConfig(Checked, place="demonstrations"):
    """Settings of the collection from scripted experts."""

    episodes: Annotated[int, at_least(1)] = 50
    """Episodes to keep per task, at least 1."""
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    """Noise on what is executed; labels stay clean."""
    success_tail: Annotated[int, at_least(0)] = 15
    """Decisions kept after the first success, at least 0."""
    keep_failures: bool = False
    """Keep unsuccessful episodes too, for learners that use rewards."""
    job_episodes: Annotated[int, at_least(1)] = 10
    """Attempts per job, at least 1; part of the protocol only for memory and progress."""
    copies: Annotated[int, at_least(1)] = 1
    """Environments stepped side by side per job, at least 1."""
    attempts_factor: Annotated[float, at_least(1)] = 4.0
    """Give up on a task after this many times `episodes` attempts, at least 1."""


@dataclass(frozen=True)
class Collected:
    """The demonstrations of one task and what they cost."""

    trajectories: Trajectories
    attempts: int
    successes: int
    """Among the attempts."""


@dataclass
class _Progress:
    parts: list[Episodes] = field(default_factory=list)
    attempts: int = 0
    successes: int = 0

    @property
    def kept(self) -> int:
        return sum(len(part) for part in self.parts)

    def add(self, result: JobResult, keep_failures: bool) -> None:
        assert result.episodes is not None, "a demonstration job must return episodes"
        won = [summary.success_any for summary in result.summaries]
        self.attempts += len(won)
        self.successes += sum(won)
        chosen = [e for e, success in enumerate(won) if success or keep_failures]
        if chosen:
            self.parts.append(result.episodes.select(chosen))


def collect_demonstrations(
    rollouts: Rollouts,
    tasks: TaskSet,
    config: DemonstrationConfig,
    seed: int,
    on_episodes: Callable[[int, int], None] | None = None,
    only: Sequence[int] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[int, Collected]:
    """Task index -> demonstrations, the first `episodes` kept attempts in order of attempt.

    Attempt i of a task plays training start i with a generator of (seed, task, start), so the result
    is the same on any runtime. `on_episodes(task_index, kept)` reports progress. `only` restricts the
    collection to some tasks. `stop` is called after every job; once it returns True, the tasks that have
    enough are returned and the others left out. Raises ConfigError when an expert cannot produce enough, or
    when a task was quarantined.
    """
    found = {k: _Progress() for k in (range(len(tasks)) if only is None else only)}
    snapshot = PolicySnapshot("expert", asdict(config.noise))
    stopped = False
    while not stopped and (jobs := _next_jobs(config, seed, found)):
        for result in rollouts.run(jobs, snapshot):
            k = result.job.task_index
            found[k].add(result, config.keep_failures)
            if on_episodes is not None:
                on_episodes(k, min(config.episodes, found[k].kept))
            stopped = stop()
            if stopped:
                break
        for k, fault in rollouts.quarantined.items():
            raise ConfigError(
                f"task {tasks[k].name} was quarantined, so its demonstrations are missing: {fault}"
            )
    collected = {}
    for k, progress in found.items():
        if progress.kept >= config.episodes:
            episodes = Episodes.concatenate(progress.parts).select(range(config.episodes))
            trajectories = Trajectories.from_episodes(episodes)
            collected[k] = Collected(trajectories, progress.attempts, progress.successes)
        elif not stopped:
            raise ConfigError(
                f"task {tasks[k].name}: the expert succeeded in {progress.kept} of {progress.attempts} "
                f"attempts; {config.episodes} were asked for. "
                "Lower demonstrations.noise.high or demonstrations.episodes"
            )
    return collected


def _next_jobs(config: DemonstrationConfig, seed: int, found: dict[int, _Progress]) -> list[EpisodeJob]:
    """Jobs for what is still missing, interleaved over tasks; whole jobs, so attempts stay in order."""
    size, limit = config.job_episodes, int(config.attempts_factor * config.episodes)
    shares: list[list[EpisodeJob]] = []
    for k, progress in found.items():
        first = progress.attempts
        missing = max(0, min(config.episodes - progress.kept, limit - first))
        shares.append(
            [
                EpisodeJob(
                    task_index=k,
                    starts=tuple(start_id(Split.TRAIN, begin + i) for i in range(size)),
                    seed=seed,
                    acting=Acting(explore=True),
                    copies=config.copies,
                    record=True,
                    success_tail=config.success_tail,
                )
                for begin in range(first, first + missing, size)
            ]
        )
    return [job for turn in zip_longest(*shares) for job in turn if job is not None]
