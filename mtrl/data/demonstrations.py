"""Collecting demonstrations: attempts in a fixed order, successes kept until there are enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from mtrl.errors import ConfigError
from mtrl.rollout import Acting, EpisodeJob, Episodes, JobResult, NoiseConfig, PolicySnapshot, Rollouts
from mtrl.structured import at_least, check
from mtrl.tasks import Split, TaskSet, start_id

from .trajectories import Trajectories


@dataclass(frozen=True)
class DemonstrationConfig:
    """What to collect from the scripted experts."""

    episodes: int = 50
    """Episodes to keep per task, at least 1."""
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    """Noise on what is executed; labels stay clean."""
    success_tail: int = 15
    """Decisions kept after the first success, at least 0."""
    keep_failures: bool = False
    """Keep unsuccessful episodes too, for learners that use rewards."""
    job_episodes: int = 10
    """Attempts per job, at least 1; part of the protocol only for memory and progress."""
    copies: int = 1
    """Environments stepped side by side per job, at least 1."""
    attempts_factor: float = 4.0
    """Give up on a task after this many times `episodes` attempts, at least 1."""

    def __post_init__(self) -> None:
        check(
            self,
            "demonstrations",
            episodes=at_least(1),
            success_tail=at_least(0),
            job_episodes=at_least(1),
            copies=at_least(1),
            attempts_factor=at_least(1),
        )


@dataclass(frozen=True)
class Collected:
    """The demonstrations of one task and what they cost."""

    trajectories: Trajectories
    attempts: int
    successes: int
    """Among the attempts that were looked at."""


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
    collection to some tasks. `stop` is asked after every job; once it says so, the tasks that have enough
    are returned and the others left out. Raises ConfigError when an expert cannot produce enough, or
    when a task was quarantined.
    """
    kept: dict[int, list[Episodes]] = {k: [] for k in (range(len(tasks)) if only is None else only)}
    tried = dict.fromkeys(kept, 0)
    won = dict.fromkeys(kept, 0)
    snapshot = PolicySnapshot("expert", asdict(config.noise))
    limit = int(config.attempts_factor * config.episodes)
    stopped = False
    while not stopped:
        jobs = _next_jobs(config, seed, kept, tried, limit)
        if not jobs:
            break
        for result in rollouts.run(jobs, snapshot):
            k = result.job.task_index
            tried[k] += len(result.summaries)
            won[k] += sum(summary.success_any for summary in result.summaries)
            chosen = _keep(result, config.keep_failures)
            if len(chosen):
                kept[k].append(chosen)
            if on_episodes is not None:
                on_episodes(k, min(config.episodes, _count(kept[k])))
            stopped = stop()
            if stopped:
                break
        for k, fault in rollouts.quarantined.items():
            raise ConfigError(
                f"task {tasks[k].name} was quarantined, so its demonstrations are missing: {fault}"
            )
    collected = {}
    for k, parts in kept.items():
        if _count(parts) < config.episodes:
            if stopped:
                continue
            raise ConfigError(
                f"task {tasks[k].name}: the expert succeeded in {_count(parts)} of {tried[k]} attempts; "
                f"{config.episodes} were asked for. "
                "Lower demonstrations.noise.high or demonstrations.episodes"
            )
        joined = Episodes.concatenate(parts).select(range(config.episodes))
        collected[k] = Collected(Trajectories.from_episodes(joined), tried[k], won[k])
    return collected


def _next_jobs(
    config: DemonstrationConfig, seed: int, kept: dict[int, list[Episodes]], tried: dict[int, int], limit: int
) -> list[EpisodeJob]:
    """Jobs for what is still missing, interleaved over tasks; whole jobs, so attempts stay in order."""
    shares: list[list[EpisodeJob]] = []
    for k, parts in kept.items():
        missing = min(config.episodes - _count(parts), limit - tried[k])
        count = -(-missing // config.job_episodes) if missing > 0 else 0
        first = tried[k]
        shares.append(
            [
                EpisodeJob(
                    task_index=k,
                    starts=tuple(
                        start_id(Split.TRAIN, first + job * config.job_episodes + i)
                        for i in range(config.job_episodes)
                    ),
                    seed=seed,
                    acting=Acting(explore=True),
                    copies=config.copies,
                    record=True,
                    success_tail=config.success_tail,
                )
                for job in range(count)
            ]
        )
    longest = max((len(share) for share in shares), default=0)
    return [share[i] for i in range(longest) for share in shares if i < len(share)]


def _keep(result: JobResult, failures: bool) -> Episodes:
    assert result.episodes is not None, "demonstration jobs record"
    wanted = [e for e, summary in enumerate(result.summaries) if failures or summary.success_any]
    return result.episodes.select(wanted)


def _count(parts: list[Episodes]) -> int:
    return sum(len(part) for part in parts)
