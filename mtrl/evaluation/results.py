"""What an evaluation found: every episode, and the summaries that follow from the episodes alone.

Two means over tasks have one definition everywhere: in result files, `summary.json`, tables and the report.

- The success of a task is the share of its episodes in which the success signal was on after any decision.
  The mean success is the mean of these shares over the tasks that are measured by success.
- The score of a task is the mean of its episodes' scores: a success counts 1, and a return is placed on the
  task's range. A return without a range has no score. The mean score is the mean of these scores over the
  tasks that have one; where all are measured by success it is the mean success, which then stands alone.
- Episodes that broke are in none of them, and neither is a task of which every episode broke.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mtrl.errors import ConfigError
from mtrl.reading import Json
from mtrl.run_directory import POLICIES
from mtrl.tasks import Score, Split, Task, TaskSet, split_of

from .broken import BrokenEpisode, UnmeasuredTask
from .provenance import Provenance
from .statistics import Estimate, mean_rate_interval, wilson_interval


@dataclass(frozen=True)
class EpisodeResult:
    """One episode on one named start."""

    task: str
    start: int
    """The start; its split is that of the evaluation."""
    episode_return: float
    """Undiscounted sum of rewards, finite."""
    success_any: bool
    """Whether the success signal was on after any decision."""
    success_end: bool
    """Whether the success signal was on after the last decision."""
    length: int
    """Decisions taken, at least 1."""
    terminated: bool
    """The problem itself ended the episode."""
    truncated: bool
    """The horizon ended the episode."""
    first_success: int | None = None
    """Decisions up to and including the first success, 1 to length; None when there was none or unknown."""

    def __post_init__(self) -> None:
        where = f"episode of {self.task!r} on start {self.start}"
        if not math.isfinite(self.episode_return):
            raise ConfigError(f"{where}: episode_return must be finite; got {self.episode_return}")
        if self.start < 0 or self.length < 1:
            raise ConfigError(
                f"{where}: start is at least 0 and length at least 1; got {self.start}, {self.length}"
            )
        if self.success_end and not self.success_any:
            raise ConfigError(f"{where}: success_end without success_any; success at the end is success")
        if self.first_success is not None and not (
            self.success_any and 1 <= self.first_success <= self.length
        ):
            raise ConfigError(
                f"{where}: first_success is 1 to {self.length} in a successful episode, otherwise null; "
                f"got {self.first_success}"
            )


@dataclass(frozen=True)
class Rate:
    """A success rate with its Wilson interval, all in [0, 1]."""

    rate: float
    low: float
    high: float

    @staticmethod
    def of(successes: int, trials: int, confidence: float) -> Rate:
        """The rate of `successes` in `trials`; raises OutOfRangeError for none."""
        low, high = wilson_interval(successes, trials, confidence)
        return Rate(successes / trials, low, high)

    @property
    def estimate(self) -> Estimate:
        """The rate with its interval."""
        return Estimate(self.rate, self.low, self.high)


@dataclass(frozen=True)
class TaskResult:
    """All episodes of one task in a few numbers."""

    name: str
    protocol_hash: str
    """The task's protocol; results are compared only where it is equal."""
    score: Score
    """How an episode of the task is mapped to a comparable number."""
    episodes: int
    """Episodes behind every number below."""
    success_any: Rate
    success_end: Rate
    mean_return: float
    mean_score: float
    """Mean normalised score, unclipped."""
    mean_length: float
    mean_first_success: float | None
    """Mean decisions to the first success over the episodes in which it is known; None without any."""
    protocol: Mapping[str, Json] | None = None
    """The fields behind `protocol_hash`, so that a difference can be named; None in files without them."""

    @property
    def is_normalised(self) -> bool:
        """Whether the score is on the scale that tasks share; see `Score.is_normalised`."""
        return self.score.is_normalised

    @property
    def by_success(self) -> bool:
        """Whether the task is measured by success."""
        return self.score.kind == "success"

    @staticmethod
    def summarise(
        name: str,
        protocol_hash: str,
        score: Score,
        episodes: Sequence[EpisodeResult],
        confidence: float,
        protocol: Mapping[str, Json] | None = None,
    ) -> TaskResult:
        """The summary of a task's episodes; raises OutOfRangeError without any."""
        count = len(episodes)
        known = [episode.first_success for episode in episodes if episode.first_success is not None]
        return TaskResult(
            name=name,
            protocol_hash=protocol_hash,
            score=score,
            episodes=count,
            success_any=Rate.of(sum(episode.success_any for episode in episodes), count, confidence),
            success_end=Rate.of(sum(episode.success_end for episode in episodes), count, confidence),
            mean_return=_mean([episode.episode_return for episode in episodes]),
            mean_score=_mean(
                [score.normalise(episode.episode_return, episode.success_any) for episode in episodes]
            ),
            mean_length=_mean([float(episode.length) for episode in episodes]),
            mean_first_success=_mean([float(decision) for decision in known]) if known else None,
            protocol=protocol,
        )


@dataclass(frozen=True)
class MeanResult:
    """Means over tasks, each task weighing the same however many episodes it has."""

    success_any: Rate | None
    """Mean success, of the tasks measured by it, with the interval of `mean_rate_interval`; None without
    such tasks."""
    success_end: Rate | None
    """The same of the success signal after the last decision."""
    score: float | None
    """Mean score, of the tasks whose score is normalised; None without any."""

    @staticmethod
    def of(tasks: Sequence[TaskResult], confidence: float) -> MeanResult:
        """The means over `tasks`."""
        solved = [task for task in tasks if task.by_success]
        scores = [task.mean_score for task in tasks if task.is_normalised]
        return MeanResult(
            success_any=_mean_rate([task.success_any for task in solved], solved, confidence),
            success_end=_mean_rate([task.success_end for task in solved], solved, confidence),
            score=_mean(scores) if scores else None,
        )


OWN = POLICIES[0].label
"""Label of the policy that a run's agent trained, from which a student may be distilled."""


@dataclass(frozen=True)
class PolicyReference:
    """Which policy was evaluated."""

    label: str
    """Name for people, such as "student"; results of one label are one policy at several versions."""
    kind: str
    """What it is: "teacher", "student", "bc", "expert", "random" or an agent's name."""
    identity: str
    """Hash of the artefact or checkpoint, or a name for a policy without weights."""
    version: int
    """Updates, or whatever the trainer counts versions in; 0 when it has none."""
    agent: str = ""
    """The agent that trained a run's own policy, in words, such as "world model"; empty for others."""

    @property
    def shown(self) -> str:
        """What people read: the label, with a run's own policy called by its agent."""
        return self.agent + self.label.removeprefix(OWN) if self.agent else self.label

    def by_agent(self, settings: object) -> PolicyReference:
        """The same, called by the agent whose settings these are where it is a run's own policy."""
        if self.agent or not self.label.startswith(OWN) or not isinstance(settings, Mapping):
            return self
        words = [settings.get("name"), settings.get("algorithm")]
        name = " ".join(word.replace("_", " ") for word in words if isinstance(word, str))
        return replace(self, agent=name)


@dataclass(frozen=True)
class EvaluationResult:
    """One policy on the fixed starts of a task set. Made by `from_episodes`, kept by `write_result`."""

    policy: PolicyReference
    split: Split
    seed: int
    confidence: float
    """Level of every interval, in (0, 1)."""
    set_hash: str
    tasks: tuple[TaskResult, ...]
    """One summary per task with an episode that was played to its end, in the set's order; at least one."""
    episodes: tuple[EpisodeResult, ...]
    """Every episode that was played to its end, by task in the set's order, then by start."""
    provenance: Provenance
    broken: tuple[BrokenEpisode, ...] = ()
    """Every other episode, in the same order."""
    unmeasured: tuple[UnmeasuredTask, ...] = ()
    """The tasks of which every episode broke, in the set's order."""

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the measured tasks, in the set's order."""
        return tuple(task.name for task in self.tasks)

    @property
    def every_task(self) -> tuple[TaskResult | UnmeasuredTask, ...]:
        """The tasks of the protocol, measured or not."""
        return (*self.tasks, *self.unmeasured)

    @property
    def every_episode(self) -> tuple[EpisodeResult | BrokenEpisode, ...]:
        """The starts of the protocol, played to their end or not."""
        return (*self.episodes, *self.broken)

    @property
    def mean(self) -> MeanResult:
        """Means over the tasks."""
        return MeanResult.of(self.tasks, self.confidence)

    @property
    def success_tasks(self) -> tuple[TaskResult, ...]:
        """The tasks measured by success, in the set's order."""
        return tuple(task for task in self.tasks if task.by_success)

    @property
    def by_success(self) -> bool:
        """Whether every task is measured by success, so that the mean success is the mean score."""
        return all(task.score.kind == "success" for task in self.every_task)

    @property
    def normalised_tasks(self) -> tuple[TaskResult, ...]:
        """The tasks whose scores may be averaged, in the set's order."""
        return tuple(task for task in self.tasks if task.is_normalised)

    def task(self, name: str) -> TaskResult | None:
        """The summary of one task, None when it was not evaluated."""
        return next((task for task in self.tasks if task.name == name), None)

    def task_episodes(self, name: str) -> tuple[EpisodeResult, ...]:
        """The episodes of one task, by start."""
        return tuple(episode for episode in self.episodes if episode.task == name)

    def normalised_scores(self, name: str) -> tuple[float, ...]:
        """The normalised score of every episode of one task, by start."""
        score = next(task.score for task in self.tasks if task.name == name)
        return tuple(
            score.normalise(episode.episode_return, episode.success_any)
            for episode in self.task_episodes(name)
        )


def from_episodes(
    tasks: TaskSet,
    episodes: Iterable[EpisodeResult],
    *,
    policy: PolicyReference,
    split: Split,
    seed: int,
    provenance: Provenance,
    confidence: float = 0.95,
    broken: Iterable[BrokenEpisode] = (),
) -> EvaluationResult:
    """Aggregates the episodes of every task of a set, and lists the broken ones; both are given in any order.

    Raises:
        ConfigError: an episode of another task or split, a start evaluated twice, a task without
            episodes, no episode that was played to its end, or one longer than the task's horizon.
    """
    by_name = {task.name: task for task in tasks}
    collected, failed = list(episodes), list(broken)
    every: list[EpisodeResult | BrokenEpisode] = [*collected, *failed]
    for episode in every:
        _check_episode(episode, by_name, split)
    _check_starts(every, tasks.names)
    if not collected:
        raise ConfigError(
            f"no episode of any task was played to its end; the first broke at start {failed[0].start} of "
            f"{failed[0].task}: {failed[0].cause}"
        )
    order = {name: index for index, name in enumerate(tasks.names)}
    collected.sort(key=lambda episode: (order[episode.task], episode.start))
    failed.sort(key=lambda episode: (order[episode.task], episode.start))
    measured = {episode.task for episode in collected}
    summaries = tuple(
        TaskResult.summarise(
            task.name,
            task.protocol_hash,
            task.score,
            [episode for episode in collected if episode.task == task.name],
            confidence,
            task.protocol,
        )
        for task in tasks
        if task.name in measured
    )
    return EvaluationResult(
        policy=policy,
        split=split,
        seed=seed,
        confidence=confidence,
        set_hash=tasks.protocol_hash,
        tasks=summaries,
        episodes=tuple(collected),
        provenance=provenance,
        broken=tuple(failed),
        unmeasured=tuple(
            UnmeasuredTask(task.name, task.protocol_hash, task.score, task.protocol)
            for task in tasks
            if task.name not in measured
        ),
    )


def _check_episode(episode: EpisodeResult | BrokenEpisode, by_name: dict[str, Task], split: Split) -> None:
    where = f"episode of {episode.task!r} on start {episode.start}"
    if episode.task not in by_name:
        raise ConfigError(f"{where}: the task is not in the evaluated set {sorted(by_name)}")
    if split_of(episode.start) is not split:
        raise ConfigError(
            f"{where}: the start is of split {split_of(episode.start).name.lower()}; "
            f"this is an evaluation on {split.name.lower()} starts"
        )

    if isinstance(episode, EpisodeResult) and episode.length > by_name[episode.task].horizon_decisions:
        raise ConfigError(
            f"{where}: {episode.length} decisions exceed the horizon of "
            f"{by_name[episode.task].horizon_decisions}"
        )


def _check_starts(episodes: Sequence[EpisodeResult | BrokenEpisode], names: Sequence[str]) -> None:
    counts = Counter((episode.task, episode.start) for episode in episodes)
    twice = next((key for key, count in counts.items() if count > 1), None)
    if twice is not None:
        raise ConfigError(f"start {twice[1]} of {twice[0]!r} was evaluated twice; each start counts once")
    missing = [name for name in names if not any(episode.task == name for episode in episodes)]
    if missing:
        raise ConfigError(f"no episodes for {', '.join(missing)}; evaluate every task of the set")


def _mean_rate(rates: Sequence[Rate], tasks: Sequence[TaskResult], confidence: float) -> Rate | None:
    if not tasks:
        return None
    trials = [task.episodes for task in tasks]
    successes = [round(rate.rate * count) for rate, count in zip(rates, trials, strict=True)]
    low, high = mean_rate_interval(successes, trials, confidence)
    return Rate(_mean([rate.rate for rate in rates]), low, high)


def _mean(values: Sequence[float]) -> float:
    # fsum: the same numbers in another order give the same mean, bit for bit
    return math.fsum(values) / len(values)
