"""The round under way: requests, what came of them, and the table that is learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mtrl.reducer import Reducer
from mtrl.rollout import Acting, EpisodeGroup, EpisodeSummary, GroupRequest, Version
from mtrl.tasks import Split, TaskSet, start_id

from .config import GRPOConfig
from .returns import centred, counts_success, deviation, episode_rewards
from .rounds import Collected, RoundSampler
from .table import RoundTable, steps_of

Vector = npt.NDArray[np.float64]

USUAL_MEMORY = 0.9
"""Share of a task's usual deviation of returns that a round keeps."""
_COLUMNS = (
    "task",
    "rank",
    "place",
    "useful",
    "score",
    "episodes",
    "frames",
    "variance",
    "first",
    "second",
    "count",
    "start",
)
"""What a rank reports of a group. "variance" is the mean square of its centred returns; "first" and "second"
are the sums over its "count" decisions of advantages, before the task scales them, and of their squares."""


class RoundCollection:
    """Groups of a round on this rank, and what all ranks know of them."""

    def __init__(self, config: GRPOConfig, tasks: TaskSet, seed: int, *, rank: int, first_start: int) -> None:
        """`first_start` numbers the first training start."""
        self.sampler = RoundSampler(config.sampler, config.groups, len(tasks), seed)
        self.ready = False
        """Whether a round is complete and was not learned from yet."""
        self._config, self._tasks, self._seed, self._rank = config, tasks, seed, rank
        self._first_start = first_start
        self._usual = np.zeros(len(tasks))
        """[K], moving average of the deviation of a task's returns within groups."""
        self._requested = False
        self._groups: list[EpisodeGroup] = []
        """This rank's groups of the round."""
        self._reported = 0
        self._rows: list[Vector] = []
        """Rows of `_COLUMNS` of all ranks' groups of the round, once per group."""

    def request(self, weights: Vector) -> list[GroupRequest]:
        """The groups [K] that are collected next, in an order that spreads tasks."""
        counts = self.sampler.next_counts(weights)
        self._requested = True
        order = [k for turn in range(int(counts.max())) for k in np.flatnonzero(counts > turn).tolist()]
        found = []
        for k in order:
            number = int(self.sampler.started[k])
            self.sampler.started[k] += 1
            found.append(
                GroupRequest(
                    task_index=k,
                    start=start_id(Split.TRAIN, self._first_start + number),
                    size=self._config.group_size,
                    acting=Acting(explore=True),
                    seed=self._seed,
                    success_tail=self._config.returns.tail if self._success(k) else None,
                )
            )
        return found

    def add(self, group: EpisodeGroup) -> None:
        """Takes a group of this rank."""
        self._groups.append(group)

    def advance(self, reducer: Reducer) -> bool:
        """Whether a complete round waits, once all ranks have what they requested; collective."""
        fresh = self._groups[self._reported :]
        rows = [self._row(self._reported + place, group) for place, group in enumerate(fresh)]
        self._reported = len(self._groups)
        table = np.array(rows).reshape(len(rows), len(_COLUMNS))
        found = reducer.gather(torch.from_numpy(table)).numpy()
        self._rows += list(found)
        if self._requested and not self.ready:
            self._requested = False
            groups = [
                Collected(int(row[0]), int(row[1]), int(row[2]), int(row[11]), bool(row[3])) for row in found
            ]
            tasks, count = found[:, 0].astype(np.int64), len(self._tasks)
            frames = np.bincount(tasks, found[:, 6], minlength=count).astype(np.float64)
            self.ready = self.sampler.add(groups, frames)
        return self.ready

    def close(self) -> tuple[RoundTable, dict[str, Vector]]:
        """Ends a complete round: the table of the groups that it keeps on this rank, and facts [K] of all
        that was collected: "score" (NaN without episodes), "collected", "useful", "kept" groups,
        "advantage_mean", "advantage_std" before tasks are standardised.
        """
        rows = np.array(self._rows).reshape(-1, len(_COLUMNS))
        kept = self.sampler.close()
        chosen = {(group.rank, group.place) for group in kept}
        held = np.array([(int(row[1]), int(row[2])) in chosen for row in rows], dtype=bool)
        count = len(self._tasks)
        tasks = rows[:, 0].astype(np.int64)

        def total(values: Vector, where: npt.NDArray[np.bool_]) -> Vector:
            return np.bincount(tasks[where], values[where], minlength=count).astype(np.float64)

        every, ones = np.ones(len(rows), dtype=bool), np.ones(len(rows))
        episodes = total(rows[:, 5], every)
        with np.errstate(invalid="ignore", divide="ignore"):
            score = total(rows[:, 4], every) / episodes
            spread = np.sqrt(total(rows[:, 7], held) / total(ones, held))
            mean = total(rows[:, 8], held) / total(rows[:, 10], held)
            std = np.sqrt(total(rows[:, 9], held) / total(rows[:, 10], held) - mean**2)
        self._follow_usual(np.sqrt(rows[:, 7]), tasks)
        table = self._table(sorted(p for r, p in chosen if r == self._rank), spread, mean, std)
        facts = {
            "score": score,
            "collected": total(ones, every),
            "useful": total(rows[:, 3], every),
            "kept": total(ones, held),
            "advantage_mean": mean,
            "advantage_std": std,
        }
        self._groups, self._rows, self._reported, self.ready = [], [], 0, False
        return table, facts

    def _table(self, places: Sequence[int], spread: Vector, mean: Vector, std: Vector) -> RoundTable:
        """Of this rank's groups; `spread` [K] is the deviation of centred returns over all groups of a task,
        `mean` and `std` [K] those of its advantages over decisions.
        """
        by_task: dict[int, tuple[list[EpisodeGroup], list[list[Vector]]]] = {}
        settings = self._config.advantage
        for place in places:
            group = self._groups[place]
            k = group.task_index
            parts = self._scaled(group)
            if settings.scale == "task":
                divisor = max(float(spread[k]), settings.floor)
                parts = [part / divisor for part in parts]
            if settings.normalise_tasks:
                parts = [(part - self._task_scale(k, spread) * mean[k]) for part in parts]
                deviation_k = self._task_scale(k, spread) * float(std[k])
                parts = [part / max(deviation_k, 1e-8) for part in parts]
            groups, advantages = by_task.setdefault(k, ([], []))
            groups.append(group)
            advantages.append(parts)
        layout = self._tasks.layout
        return RoundTable(
            {
                k: steps_of(groups, advantages, layout, self._tasks[k].horizon_decisions)
                for k, (groups, advantages) in by_task.items()
            }
        )

    def _task_scale(self, k: int, spread: Vector) -> float:
        """What the sums over a task's decisions were not divided by yet."""
        settings = self._config.advantage
        return 1.0 / max(float(spread[k]), settings.floor) if settings.scale == "task" else 1.0

    def _centred(self, group: EpisodeGroup) -> list[Vector]:
        rewards = episode_rewards(group, self._tasks[group.task_index], self._config.returns)
        return centred(rewards, self._config.returns.discount, self._config.advantage.baseline)

    def _scaled(self, group: EpisodeGroup) -> list[Vector]:
        """Centred returns, divided where the group scales them: A = (R - mean) / max(std, floor)."""
        parts, settings = self._centred(group), self._config.advantage
        if settings.scale != "group":
            return parts
        divisor = max(deviation(parts), settings.floor)
        return [part / divisor for part in parts] if divisor > 0 else parts

    def _row(self, place: int, group: EpisodeGroup) -> Vector:
        """What all ranks need to know of a group, as `_COLUMNS`."""
        k, task = group.task_index, self._tasks[group.task_index]
        spread = deviation(self._centred(group))
        advantages = np.concatenate(self._scaled(group))
        scores = [
            np.clip(task.score.normalise(s.episode_return, s.success_any), 0.0, 1.0)
            if task.score.is_normalised
            else np.nan
            for s in group.summaries
        ]
        return np.array(
            [
                k,
                self._rank,
                place,
                self._is_useful(group, spread),
                sum(scores),
                len(group),
                group.offsets[-1],
                spread**2,
                advantages.sum(),
                (advantages**2).sum(),
                len(advantages),
                group.summaries[0].start,
            ],
            dtype=np.float64,
        )

    def _is_useful(self, group: EpisodeGroup, spread: float) -> bool:
        """Whether a group has a gradient, and with the filter enough of one: by its share of successes, or by
        how far its returns deviate, never by scaled rewards.
        """
        if spread == 0.0:
            return False
        if not self._config.sampler.filter:
            return True
        if self._success(group.task_index):
            return 0 < sum(summary.success_any for summary in group.summaries) < len(group)
        return spread >= self._config.sampler.equal_returns * float(self._usual[group.task_index])

    def _success(self, k: int) -> bool:
        return counts_success(self._tasks[k], self._config.returns)

    def _follow_usual(self, spread: Vector, tasks: npt.NDArray[np.int64]) -> None:
        for k in np.unique(tasks).tolist():
            mean = float(spread[tasks == k].mean())
            kept = USUAL_MEMORY if self._usual[k] else 0.0
            self._usual[k] = kept * self._usual[k] + (1.0 - kept) * mean

    def shared_state(self) -> dict[str, Any]:
        """What ranks agreed on."""
        return {
            "sampler": self.sampler.state_dict(),
            "usual": self._usual.copy(),
            "requested": self._requested,
            "ready": self.ready,
            "rows": [row.copy() for row in self._rows],
        }

    def local_state(self) -> dict[str, Any]:
        """This rank's groups of the round under way."""
        return {"groups": [_state_of(group) for group in self._groups], "reported": self._reported}

    def restore(self, shared: Mapping[str, Any], local: Mapping[str, Any] | None) -> None:
        """Restores both; without `local` the round under way begins again."""
        under_way = local is not None
        self.sampler.load_state_dict(shared["sampler"], under_way=under_way)
        self._usual[:] = shared["usual"]
        self._requested = bool(shared["requested"]) and under_way
        self.ready = bool(shared["ready"]) and under_way
        self._rows = [row.copy() for row in shared["rows"]] if under_way else []
        self._groups = [] if local is None else [_group_of(state) for state in local["groups"]]
        self._reported = 0 if local is None else int(local["reported"])


def _state_of(group: EpisodeGroup) -> dict[str, Any]:
    summaries = [asdict(summary) for summary in group.summaries]
    return {**vars(group), "summaries": summaries, "policy_version": list(group.policy_version)}


def _group_of(state: Mapping[str, Any]) -> EpisodeGroup:
    summaries = tuple(EpisodeSummary(**summary) for summary in state["summaries"])
    version = Version(*map(int, state["policy_version"]))
    return EpisodeGroup(**{**state, "summaries": summaries, "policy_version": version})
