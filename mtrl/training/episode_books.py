"""What finished episodes returned, put together from fragments."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mtrl.rollout import EpisodeSummary, Fragment
from mtrl.tasks import Task

from .metrics import Metric, Metrics

EPISODE_METRICS: Metrics = {
    "return/{task}": Metric(
        "mean over the episodes finished since the last record of the sum of rewards, exploration included",
        "reward",
        "mtrl.training.episode_books:EpisodeBooks.metrics",
    ),
    "success/{task}": Metric(
        "share of those episodes in which the success signal was ever on",
        "1",
        "mtrl.training.episode_books:EpisodeBooks.metrics",
    ),
    "length/{task}": Metric(
        "mean number of decisions of those episodes",
        "decisions",
        "mtrl.training.episode_books:EpisodeBooks.metrics",
    ),
}
"""What the books add to metrics.jsonl; a task without a finished episode has no entry."""


RECENT = 20
"""Episodes of a task that `EpisodeBooks.recent` looks back on."""

OnEpisode = Callable[[int, float, bool], None]
"""(task index, return, whether the success signal was ever on) of an episode that has just ended."""


class EpisodeBooks:
    """Sums rewards per episode across fragments, whichever worker they come from."""

    def __init__(
        self, names: Sequence[str], skip_below: int = 0, on_episode: OnEpisode | None = None
    ) -> None:
        """`names` of the tasks by index. Episodes with an id below `skip_below` are left out: the first
        ones of staggered copies are cut short on purpose. `on_episode` is told of every other one.
        """
        self._names, self._skip_below, self._on_episode = tuple(names), skip_below, on_episode
        self._open: dict[tuple[int, int], list[float]] = {}
        self._finished: dict[int, list[list[float]]] = {}
        self._recent: dict[int, deque[tuple[float, bool]]] = {}
        self._words: dict[str, str] | None = None

    def add(self, fragment: Fragment) -> None:
        """Books a fragment; fragments of one lane come in order."""
        k = fragment.task_index
        ended = fragment.terminated | fragment.truncated
        for copy in range(fragment.reward.shape[1]):
            ids = fragment.episode_id[:-1, copy]
            cuts = [0, *(np.flatnonzero(np.diff(ids)) + 1).tolist(), len(ids)]
            for begin, end in itertools.pairwise(cuts):
                episode = int(ids[begin])
                books = self._open.setdefault((k, episode), [0.0, 0.0, 0.0])
                books[0] += float(fragment.reward[begin:end, copy].sum(dtype=np.float64))
                books[1] = max(books[1], float(fragment.success[begin:end, copy].any()))
                books[2] += end - begin
                if ended[end - 1, copy]:
                    del self._open[k, episode]
                    if episode >= self._skip_below:
                        self._finish(k, books)

    def add_summary(self, summary: EpisodeSummary) -> None:
        """Books a finished episode that was summed elsewhere."""
        books = [summary.episode_return, float(summary.success_any), float(summary.length)]
        self._finish(summary.task_index, books)

    def metrics(self) -> dict[str, float]:
        """Means over the episodes finished since the last call."""
        found: dict[str, float] = {}
        for k, episodes in sorted(self._finished.items()):
            means = np.mean(episodes, axis=0)
            for name, value in zip(("return", "success", "length"), means, strict=True):
                found[f"{name}/{self._names[k]}"] = float(value)
        self._finished = {}
        return found

    def recent(self, tasks: Sequence[Task]) -> dict[str, str]:
        """How the latest episodes went, up to `RECENT` of each task and of this session: the "success" or
        "return" of a single task, the "score" of several, normalised and averaged over those that have
        finished an episode; in words for a bar. Empty before any has. `tasks` are those of the books.
        """
        if not self._recent:
            return {}
        if self._words is None:
            # asked for after every step, and changed by the end of an episode alone
            self._words = self._in_words(tasks)
        return self._words

    def state_dict(self) -> dict[str, Any]:
        """Episodes under way, and those finished but not yet logged."""
        return {
            "open": {key: list(books) for key, books in self._open.items()},
            "finished": {k: [list(books) for books in found] for k, found in self._finished.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`."""
        self._open = {(int(k), int(e)): list(books) for (k, e), books in state["open"].items()}
        self._finished = {int(k): [list(b) for b in found] for k, found in state["finished"].items()}

    def _in_words(self, tasks: Sequence[Task]) -> dict[str, str]:
        if len(tasks) == 1:
            mean_return, share_of_successes = np.mean(self._recent[0], axis=0)
            if tasks[0].score.kind == "success":
                return {"success": f"{share_of_successes:.0%}"}
            return {"return": f"{mean_return:.4g}"}
        scores = [
            np.mean([tasks[k].score.normalise(value, success) for value, success in episodes])
            for k, episodes in self._recent.items()
        ]
        return {"score": f"{np.mean(scores):.0%}"}

    def forget_open(self) -> None:
        """Drops episodes under way, for lanes that begin afresh."""
        self._open = {}

    def _finish(self, task_index: int, books: list[float]) -> None:
        self._finished.setdefault(task_index, []).append(books)
        latest = self._recent.setdefault(task_index, deque(maxlen=RECENT))
        latest.append((books[0], books[1] > 0))
        self._words = None
        if self._on_episode is not None:
            self._on_episode(task_index, books[0], books[1] > 0)
