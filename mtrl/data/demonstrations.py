"""Collecting demonstrations: attempts in a fixed order, successes kept until there are enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest

from mtrl.errors import ConfigError
from mtrl.rollout import Acting, EpisodeJob, Episodes, JobResult, NoiseConfig, PolicySnapshot, Rollouts
from mtrl.tasks import Split, TaskSet, start_id

from .config import DemonstrationConfig
from .trajectories import Trajectories


@dataclass(frozen=True)
class Collected:
    """The demonstrations of one task and what they cost."""

    trajectories: Trajectories
    attempts: int
    successes: int
    """Among the attempts."""
    starts: int
    """Different starts that were attempted; each has at most one success."""


@dataclass(frozen=True)
class _Quality:
    """Which episodes of one kind are collected."""

    snapshot: PolicySnapshot
    episodes: int
    keeps: Callable[[bool], bool]
    """Whether an attempt is kept that succeeded, or did not."""
    tries: int = 1
    first_repeat: int = 0
    """Distinguishes attempts of other kinds at the same starts."""
    clean: bool = True
    """Whether labels are the expert's, or what was executed."""


def _qualities(config: DemonstrationConfig) -> list[_Quality]:
    mixture = config.mixture
    noisy, failing = (round(share * config.episodes) for share in (mixture.noisy, mixture.failing))
    much = NoiseConfig(fraction=1.0, low=mixture.low, high=mixture.high)
    found = [
        _Quality(
            PolicySnapshot("expert", asdict(config.noise)),
            config.episodes - noisy - failing,
            lambda success: success or config.keep_failures,
            config.tries,
        ),
        _Quality(
            PolicySnapshot("expert", asdict(much)), noisy, lambda _: True, first_repeat=1000, clean=False
        ),
        _Quality(
            PolicySnapshot("random"), failing, lambda success: not success, first_repeat=2000, clean=False
        ),
    ]
    return [quality for quality in found if quality.episodes]


@dataclass
class _Progress:
    quality: _Quality
    parts: list[Episodes] = field(default_factory=list)
    attempts: int = 0
    successes: int = 0
    starts: int = 0
    again: list[tuple[int, int]] = field(default_factory=list)
    """Starts to try again, and how often they were tried."""

    @property
    def kept(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def missing(self) -> int:
        return max(0, self.quality.episodes - self.kept)

    def next(self, count: int) -> list[tuple[int, int]]:
        """Attempts as (start, tries before), those that failed first."""
        chosen, self.again = self.again[:count], self.again[count:]
        fresh = range(self.starts, self.starts + count - len(chosen))
        self.starts += len(fresh)
        return [*chosen, *((start_id(Split.TRAIN, index), 0) for index in fresh)]

    def add(self, result: JobResult) -> None:
        assert result.episodes is not None, "a demonstration job must return episodes"
        won = [summary.success_any for summary in result.summaries]
        self.attempts += len(won)
        self.successes += sum(won)
        chosen = [e for e, success in enumerate(won) if self.quality.keeps(success)]
        if chosen:
            self.parts.append(result.episodes.select(chosen))
        for summary, success in zip(result.summaries, won, strict=True):
            tried = summary.repeat - self.quality.first_repeat + 1
            if not success and tried < self.quality.tries:
                self.again.append((summary.start, tried))

    def trajectories(self) -> Trajectories:
        """The first `episodes` that were kept."""
        episodes = Episodes.concatenate(self.parts).select(range(self.quality.episodes))
        found = Trajectories.from_episodes(episodes)
        return found if self.quality.clean else replace(found, labels=found.actions)


def collect_demonstrations(
    rollouts: Rollouts,
    tasks: TaskSet,
    config: DemonstrationConfig,
    seed: int,
    on_episodes: Callable[[int, int], None] | None = None,
    only: Sequence[int] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[int, Collected]:
    """Task index -> demonstrations, the first `episodes` kept attempts in order of attempt; those of a
    mixture's worse episodes follow.

    Attempt i of a task plays training start i with a generator of (seed, task, start), so the result
    is the same on any runtime. `on_episodes(task_index, kept)` reports progress. `only` restricts the
    collection to some tasks. `stop` is called after every job; once it returns True, the tasks that have
    enough are returned and the others left out. Raises ConfigError when an expert cannot produce enough, or
    when a task was quarantined. Attempts, successes and starts are those of the experts, where they play.
    """
    which = list(range(len(tasks)) if only is None else only)
    finished: list[dict[int, _Progress]] = []
    for quality in _qualities(config):
        before = {k: sum(part[k].quality.episodes for part in finished) for k in which}
        found = {k: _Progress(quality) for k in which}

        def report(k: int, progress: _Progress, before: dict[int, int] = before) -> None:
            if on_episodes is not None:
                on_episodes(k, before[k] + min(progress.quality.episodes, progress.kept))

        stopped = _collect(rollouts, tasks, config, seed, found, report, stop)
        which = [k for k in which if not found[k].missing]
        finished.append(found)
        if stopped:
            break
    if len(finished) < len(_qualities(config)):
        which = []
    collected = {}
    for k in which:
        first, *_ = parts = [part[k] for part in finished]
        merged = [part.trajectories() for part in parts]
        collected[k] = Collected(
            merged[0] if len(merged) == 1 else Trajectories.merged(merged),
            first.attempts,
            first.successes,
            first.starts,
        )
    return collected


def _collect(
    rollouts: Rollouts,
    tasks: TaskSet,
    config: DemonstrationConfig,
    seed: int,
    found: dict[int, _Progress],
    report: Callable[[int, _Progress], None],
    stop: Callable[[], bool],
) -> bool:
    """Adds episodes of one quality until every task has enough; whether it was stopped before."""
    while jobs := _next_jobs(config, seed, found):
        snapshot = next(iter(found.values())).quality.snapshot
        for result in rollouts.run(jobs, snapshot):
            k = result.job.task_index
            found[k].add(result)
            report(k, found[k])
            if stop():
                return True
        for k, fault in rollouts.quarantined.items():
            raise ConfigError(
                f"task {tasks[k].name} was quarantined, so its demonstrations are missing: {fault}"
            )
    for k, progress in found.items():
        if progress.missing:
            who = "random play" if progress.quality.snapshot.kind == "random" else "the expert"
            raise ConfigError(
                f"task {tasks[k].name}: {who} succeeded in {progress.successes} of {progress.attempts} "
                f"attempts, of which {progress.kept} were kept; {progress.quality.episodes} were asked for. "
                "Lower demonstrations.noise.high or demonstrations.episodes"
            )
    return False


def _next_jobs(config: DemonstrationConfig, seed: int, found: dict[int, _Progress]) -> list[EpisodeJob]:
    """Jobs for what is still missing, interleaved over tasks; whole jobs, so attempts stay in order."""
    size = config.job_episodes
    shares: list[list[EpisodeJob]] = []
    for k, progress in found.items():
        limit = int(config.attempts_factor * progress.quality.episodes)
        count = -(-min(progress.missing, max(0, limit - progress.attempts)) // size) * size
        attempts = progress.next(count)
        shares.append(
            [
                EpisodeJob(
                    task_index=k,
                    starts=tuple(start for start, _ in attempts[i : i + size]),
                    seed=seed,
                    acting=Acting(explore=True),
                    copies=config.copies,
                    record=True,
                    success_tail=config.success_tail,
                    repeats=tuple(progress.quality.first_repeat + t for _, t in attempts[i : i + size]),
                )
                for i in range(0, count, size)
            ]
        )
    return [job for turn in zip_longest(*shares) for job in turn if job is not None]
