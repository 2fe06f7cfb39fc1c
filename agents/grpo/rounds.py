"""Which groups a round asks for, and which of them it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .config import SamplerConfig

Vector = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

FILTER_MEMORY = 0.9
"""Share of the old filtered share of a task that a round keeps (the program of MT-GRPO: 0.9)."""


@dataclass(frozen=True)
class Collected:
    """A group, as every rank knows it."""

    task: int
    rank: int
    """The rank that holds it."""
    place: int
    """Its number among that rank's groups of the round."""
    start: int
    """Orders the groups of a task, whichever rank holds them."""
    useful: bool
    """Whether the filter keeps it."""


class RoundSampler:
    """Rounds of B groups: uniform, filtered (DAPO), or in the proportions of task weights with oversampling
    and refills (the ratio-preserving sampler of MT-GRPO, arXiv 2602.05547). All ranks call it alike.
    """

    def __init__(self, config: SamplerConfig, groups: int, tasks: int, seed: int) -> None:
        """B `groups` of K `tasks`."""
        self.filtered = np.zeros(tasks)
        """rho [K], moving average of the share of a task's groups that the filter drops."""
        self.frames = np.zeros(tasks)
        """[K], environment steps collected."""
        self.started = np.zeros(tasks, dtype=np.int64)
        """[K], groups requested so far, which number the starts."""
        self.collected: list[Collected] = []
        """Groups of the round under way."""
        self._config, self._groups, self._tasks = config, groups, tasks
        self._draws = np.random.default_rng([seed, 3])
        self._targets: Counts | None = None
        self._refills = 0
        self._turn = 0

    @property
    def factors(self) -> Vector:
        """m_k = min(1 / (1 - rho_k), M_acc)."""
        # a task that was dropped entirely would be divided by 0
        return np.minimum(1.0 / np.maximum(1.0 - self.filtered, 1e-9), self._config.largest_factor)

    def proportions(self, weights: Vector) -> Vector:
        """z_hat [K], z_k m_k normalised: what is collected, so that z is what remains."""
        if not self._config.acceptance_aware:
            return weights
        scaled = weights * self.factors
        return scaled / scaled.sum()

    def next_counts(self, weights: Vector) -> Counts:
        """Groups [K] to collect now: the beginning of a round, or what it lacks."""
        if self._targets is None:
            self._targets = self._draw_targets(weights)
            if self._config.oversampling == 1 and not self._config.acceptance_aware:
                return self._targets
            total = round(self._config.oversampling * self._groups)
            return _split(self.proportions(self._targets / self._groups), total)
        lacking = np.maximum(self._targets - self._useful(), 0)
        if self._config.acceptance_aware:
            return np.ceil(lacking * self.factors).astype(np.int64)
        return lacking

    def add(self, groups: list[Collected], frames: Vector) -> bool:
        """Takes what was collected since the last `next_counts`, with environment steps [K]; returns whether
        the round is complete.
        """
        self.collected += groups
        self.frames += frames
        if not self._config.filter:
            return True
        enough = self._targets is not None and bool((self._useful() >= self._targets).all())
        self._refills += not enough
        return enough or self._refills > self._config.refills

    def close(self) -> list[Collected]:
        """Ends the round; returns the useful groups that it trains on: n_k of each task, topped up to B at
        random where some task lacks groups.
        """
        assert self._targets is not None, "a round must be requested first"
        useful = [group for group in self.collected if group.useful]
        self._follow_filter()
        targets, self._targets = self._targets, None
        chosen, spare = list[Collected](), list[Collected]()
        for k in range(self._tasks):
            own = sorted((group for group in useful if group.task == k), key=lambda group: group.start)
            order = self._draws.permutation(len(own)) if len(own) > targets[k] else np.arange(len(own))
            chosen += [own[i] for i in order[: targets[k]]]
            spare += [own[i] for i in order[targets[k] :]]
        missing = self._groups - len(chosen)
        if missing > 0 and spare:
            chosen += [spare[i] for i in self._draws.permutation(len(spare))[:missing]]
        self.collected, self._refills = [], 0
        return chosen

    def _draw_targets(self, weights: Vector) -> Counts:
        """n [K], summing to B."""
        if self._config.kind == "weights":
            return self._draws.multinomial(self._groups, weights / weights.sum())
        targets = np.zeros(self._tasks, dtype=np.int64)
        if self._config.kind == "frames":
            shares = np.array(self._config.frames or [1.0] * self._tasks)
            behind = self.frames / shares
            # what a group of the task took so far, the same for all at first
            cost = np.where(self.started > 0, self.frames / np.maximum(self.started, 1), 1.0) / shares
            for _ in range(self._groups):
                k = int(behind.argmin())
                targets[k] += 1
                behind[k] += cost[k]
            return targets
        for _ in range(self._groups):
            targets[self._turn % self._tasks] += 1
            self._turn += 1
        return targets

    def _useful(self) -> Counts:
        tasks = [group.task for group in self.collected if group.useful]
        return np.bincount(np.array(tasks, dtype=np.int64), minlength=self._tasks)

    def _follow_filter(self) -> None:
        """rho <- d rho + (1 - d) (share dropped), in every round, also where nothing was dropped."""
        tasks = np.array([group.task for group in self.collected], dtype=np.int64)
        every = np.bincount(tasks, minlength=self._tasks)
        there = every > 0
        share = 1.0 - self._useful()[there] / every[there]
        self.filtered[there] = FILTER_MEMORY * self.filtered[there] + (1.0 - FILTER_MEMORY) * share

    def state_dict(self) -> dict[str, Any]:
        """All that later rounds depend on; the round under way too."""
        return {
            "filtered": self.filtered.copy(),
            "frames": self.frames.copy(),
            "started": self.started.copy(),
            "collected": [[g.task, g.rank, g.place, g.start, int(g.useful)] for g in self.collected],
            "draws": self._draws.bit_generator.state,
            "targets": None if self._targets is None else self._targets.copy(),
            "refills": self._refills,
            "turn": self._turn,
        }

    def load_state_dict(self, state: Mapping[str, Any], *, under_way: bool) -> None:
        """Restores `state_dict`; the round under way begins again unless `under_way`."""
        for name in ("filtered", "frames", "started"):
            getattr(self, name)[:] = state[name]
        self._draws.bit_generator.state = state["draws"]
        self._turn = int(state["turn"])
        rows = state["collected"] if under_way else []
        self.collected = [Collected(int(k), int(r), int(p), int(s), bool(u)) for k, r, p, s, u in rows]
        targets = state["targets"] if under_way else None
        self._targets = None if targets is None else targets.copy()
        self._refills = int(state["refills"]) if under_way else 0


def _split(shares: Vector, total: int) -> Counts:
    """Whole numbers nearest to `shares` times `total` that sum to it (largest remainders)."""
    exact = shares * total
    found = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - found), kind="stable")
    found[order[: total - found.sum()]] += 1
    return found
