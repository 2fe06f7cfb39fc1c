"""Metrics of a run itself: rates, counts, and the figures of evaluations while learning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mtrl.rollout import STALENESS_BOUNDS

from .metrics import Metric, Metrics
from .task_shares import SHARE_METRICS

if TYPE_CHECKING:
    from mtrl.evaluation import EvaluationResult

_WHERE = "mtrl.training.run_recorder:RunRecorder"

RUN_TIMINGS: Metrics = {
    "steps_per_second": Metric(
        "environment steps since the last record / seconds since then, updates and checkpoints included",
        "1/s",
        f"{_WHERE}.log",
    ),
    "updates_per_second": Metric(
        "updates since the last record / seconds since then, collection and checkpoints included",
        "1/s",
        f"{_WHERE}.log",
    ),
}
"""Metrics of a run in timing.jsonl; steps only where it collects, updates only where it counts them."""

STALENESS_METRICS: Metrics = {
    **{
        f"staleness/{part}": Metric(
            f"share of fragments that were {part} publications behind the newest policy when the learner "
            "took them; of the first rank, where fragments come by arrival (runtime=ray)",
            "1",
            "mtrl.rollout.staleness:Staleness.metrics",
        )
        for part in STALENESS_BOUNDS
    },
    "staleness_max": Metric(
        "most publications that one of these fragments was behind",
        "publications",
        "mtrl.rollout.staleness:Staleness.metrics",
    ),
}
"""Metrics of how old collected data are in metrics.jsonl."""

RUN_METRICS: Metrics = {
    "updates": Metric(
        "updates so far; where the run counts environment steps", "updates", f"{_WHERE}.record"
    ),
    "lost_steps": Metric(
        "environment steps so far that a lost learner had taken and whose updates were lost with it; where "
        "there were any, which takes an agent without a replay",
        "steps",
        f"{_WHERE}.resume",
    ),
    "lost_starts": Metric(
        "episodes so far that ended with their process or node, or with a run that went on with other lanes; "
        "where there were any. lost_starts.json lists them",
        "episodes",
        "mtrl.rollout.lost_starts:LostStarts.add",
    ),
    **SHARE_METRICS,
    **STALENESS_METRICS,
}
"""Metrics of a run itself in metrics.jsonl, besides its episodes and evaluations."""

EVALUATION_METRICS: Metrics = {
    "evaluation_return/{task}": Metric(
        "mean return on the configured starts without exploration, every online.evaluate_every steps",
        "reward",
        "mtrl.training.run_metrics:evaluation_metrics",
    ),
    "evaluation_success/{task}": Metric(
        "share of those episodes in which the success signal was ever on",
        "1",
        "mtrl.training.run_metrics:evaluation_metrics",
    ),
    "evaluation_broken/{task}": Metric(
        "episodes that a fault of the environment ended, which the two above leave out; where any was",
        "episodes",
        "mtrl.training.run_metrics:evaluation_metrics",
    ),
}
"""Metrics of evaluations while learning in metrics.jsonl."""


def evaluation_metrics(result: EvaluationResult) -> dict[str, float]:
    """Mean return and success of every task, and how many of its episodes broke."""
    found: dict[str, float] = {}
    for name in (task.name for task in result.tasks):
        episodes = [episode for episode in result.episodes if episode.task == name]
        found[f"evaluation_return/{name}"] = sum(e.episode_return for e in episodes) / len(episodes)
        found[f"evaluation_success/{name}"] = sum(e.success_any for e in episodes) / len(episodes)
    for name, count in Counter(episode.task for episode in result.broken).items():
        found[f"evaluation_broken/{name}"] = float(count)
    return found


class Means:
    """Means of named values since they were last taken."""

    def __init__(self) -> None:
        """No value yet."""
        self._sums: dict[str, list[float]] = {}

    def add(self, metrics: Mapping[str, float]) -> None:
        """Adds one value of each name."""
        for name, value in metrics.items():
            entry = self._sums.setdefault(name, [0.0, 0.0])
            entry[0] += value
            entry[1] += 1.0

    def take(self) -> dict[str, float]:
        """The means, which start again then."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        return means

    def state_dict(self) -> dict[str, list[float]]:
        """Sums and counts."""
        return {name: list(entry) for name, entry in self._sums.items()}

    def load_state_dict(self, state: Mapping[str, list[float]]) -> None:
        """Restores `state_dict`."""
        self._sums = {name: list(entry) for name, entry in state.items()}
