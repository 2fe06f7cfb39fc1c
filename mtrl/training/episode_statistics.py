"""Returns of finished episodes, summed across fragments."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mtrl.rollout import EpisodeSummary, Fragment, LostStart, OpenEpisodes
from mtrl.tasks import Task

from .metrics import Metric, Metrics

if TYPE_CHECKING:
    from mtrl.reducer import Reducer

_WHERE = "mtrl.training.episode_statistics:EpisodeStatistics.metrics"

EPISODE_METRICS: Metrics = {
    "return/{task}": Metric(
        "mean over the episodes finished since the last record of the sum of rewards, exploration included",
        "reward",
        _WHERE,
    ),
    "success/{task}": Metric("share of those episodes in which the success signal was ever on", "1", _WHERE),
    "length/{task}": Metric("mean number of decisions of those episodes", "decisions", _WHERE),
}
"""Metrics of episodes in metrics.jsonl; a task without a finished one has no entry."""


RECENT = 20
"""Episodes of a task that `EpisodeStatistics.recent` looks back on."""

OnEpisode = Callable[[int, float, bool], None]
"""(task index, return, whether the success signal was ever on) of an episode that has just ended."""


class EpisodeStatistics:
    """Sums rewards per episode across fragments, whichever worker or rank they come from."""

    def __init__(
        self, names: Sequence[str], skip_below: int = 0, on_episode: OnEpisode | None = None
    ) -> None:
        """`names` of the tasks by index. Episodes with an id below `skip_below` are left out: the first
        ones of staggered copies are cut short on purpose. `on_episode` receives every other one.
        """
        self._names, self._skip_below, self._on_episode = tuple(names), skip_below, on_episode
        self._open: dict[tuple[int, int], list[float]] = {}
        self._joined: set[tuple[int, int]] | None = None
        """Task and copy of the lanes seen since `forget_open`; None before."""
        self._cut: set[tuple[int, int]] = set()
        """Episodes under way whose beginning is not known."""
        self._own: list[tuple[int, list[float]]] = []
        self._under_way = OpenEpisodes()
        self._own_lost: list[LostStart] = []
        self._lost: list[LostStart] = []
        self._finished: dict[int, list[list[float]]] = {}
        self._recent: dict[int, deque[tuple[float, bool]]] = {}
        self._text: dict[str, str] | None = None

    def add(self, fragment: Fragment) -> None:
        """Adds a fragment of this rank; fragments of one lane come in order."""
        k, steps = fragment.task_index, len(fragment.reward)
        for lost in self._under_way.add(fragment):
            self._own_lost.append(lost)
            self._open.pop((k, lost.episode), None)
            self._cut.discard((k, lost.episode))
        ended = fragment.terminated | fragment.truncated
        for copy in range(fragment.reward.shape[1]):
            ids = fragment.episode_id[:steps, copy]
            cuts = [0, *(np.flatnonzero(np.diff(ids)) + 1).tolist(), steps]
            for begin, end in itertools.pairwise(cuts):
                episode = int(ids[begin])
                if begin == 0 and self._joins(k, fragment.first_copy + copy, fragment.first_step):
                    self._cut.add((k, episode))
                sums = self._open.setdefault((k, episode), [0.0, 0.0, 0.0])
                sums[0] += float(fragment.reward[begin:end, copy].sum(dtype=np.float64))
                sums[1] = max(sums[1], float(fragment.success[begin:end, copy].any()))
                sums[2] += end - begin
                if ended[end - 1, copy]:
                    del self._open[k, episode]
                    if (k, episode) in self._cut:
                        self._cut.remove((k, episode))
                    elif episode >= self._skip_below:
                        self._own.append((k, sums))

    def add_summary(self, summary: EpisodeSummary) -> None:
        """Adds a finished episode that was summed elsewhere."""
        sums = [summary.episode_return, float(summary.success_any), float(summary.length)]
        self._own.append((summary.task_index, sums))

    def merge(self, reducer: Reducer | None = None) -> None:
        """Counts the episodes that have finished or were lost on any rank since the last call; collective."""
        import torch

        fresh, self._own = self._own, []
        lost, self._own_lost = self._own_lost, []
        if reducer is not None and reducer.size > 1:
            own = [[0, k, *sums] for k, sums in fresh] + [[1, *one] for one in lost]
            rows = reducer.gather(torch.tensor(own, dtype=torch.float64).reshape(-1, 5)).tolist()
            fresh = [(int(row[1]), row[2:]) for row in rows if not row[0]]
            lost = [LostStart(*map(int, row[1:])) for row in rows if row[0]]
        self._lost += lost
        for k, sums in fresh:
            self._finished.setdefault(k, []).append(sums)
            latest = self._recent.setdefault(k, deque(maxlen=RECENT))
            latest.append((sums[0], sums[1] > 0))
            self._text = None
            if self._on_episode is not None:
                self._on_episode(k, sums[0], sums[1] > 0)

    def take_lost(self) -> list[LostStart]:
        """The starts that were found lost since the last call, on all ranks."""
        found, self._lost = self._lost, []
        return found

    def metrics(self) -> dict[str, float]:
        """Means over the episodes counted since the last call."""
        found: dict[str, float] = {}
        for k, episodes in sorted(self._finished.items()):
            means = np.mean(episodes, axis=0)
            for name, value in zip(("return", "success", "length"), means, strict=True):
                found[f"{name}/{self._names[k]}"] = float(value)
        self._finished = {}
        return found

    def recent(self, tasks: Sequence[Task]) -> dict[str, str]:
        """Means over the latest episodes, up to `RECENT` of each task and of this session: the "success" or
        "return" of a single task, the "score" of several, normalised and averaged over those that have
        finished an episode; as text for a bar. Empty before any has. `tasks` are those of the statistics.
        """
        if not self._recent:
            return {}
        if self._text is None:
            # read after every step, and changed by the end of an episode alone
            self._text = self._as_text(tasks)
        return self._text

    def state_dict(self) -> dict[str, Any]:
        """Episodes under way, and those finished but not yet logged."""
        return {
            "open": {key: list(sums) for key, sums in self._open.items()},
            "finished": {k: [list(sums) for sums in found] for k, found in self._finished.items()},
            "under_way": self._under_way.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`."""
        self._open = {(int(k), int(e)): list(sums) for (k, e), sums in state["open"].items()}
        self._finished = {int(k): [list(b) for b in found] for k, found in state["finished"].items()}
        self._under_way.load_state_dict(state.get("under_way", ()))

    def forget_open(self) -> None:
        """Drops episodes under way, for lanes that are opened again, and for those that went on meanwhile,
        whose present episodes are left out.
        """
        self._open, self._joined, self._cut = {}, set(), set()

    def _joins(self, task_index: int, copy: int, first_step: int) -> bool:
        """Whether this is the first that is seen of a lane that went on meanwhile."""
        if self._joined is None or (task_index, copy) in self._joined:
            return False
        self._joined.add((task_index, copy))
        return first_step > 0

    def _as_text(self, tasks: Sequence[Task]) -> dict[str, str]:
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
