"""GCond: conflicts resolved pair by pair; the more persistent gradient changes less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from mtrl.errors import ConfigError
from mtrl.structured import BELOW_ONE, POSITIVE, Checked, at_least, between

from .base import Weighting, WeightingInputs, cancels, require_gramian

_GONE = 1e-8
"""Share of its square below which a gradient counts as gone: what is left is rounding."""
_TIE = 1e-6
"""Difference of cosines and of scores below which rounding decides; `deficient` is then set."""


@dataclass(frozen=True)
class GCondConfig(Checked):
    """Settings of GCond; cosines run from -1 to 1, critical < main < weak."""

    critical: Annotated[float, between(-1, 1)] = -0.8
    """Cosine below which only the reduced gradient is projected, in full, and the kept one is unchanged."""
    main: Annotated[float, between(-1, 1)] = -0.5
    """Cosine at which both gradients are projected in full; towards `weak` both projections shrink to none,
    towards `critical` that of the kept gradient alone."""
    weak: Annotated[float, between(-1, 1)] = 0.0
    """Cosine above which gradients do not conflict."""
    exponent: Annotated[float, POSITIVE] = 2.0
    """Exponent of the angle's growth from pi / 2 at `main` to pi at `critical`, above 0."""
    stability: Annotated[float, at_least(0)] = 0.8
    """Weight of a gradient's cosine with that of the step before, in the choice of the gradient that is
    kept."""
    strength: Annotated[float, at_least(0)] = 0.2
    """Weight of its length relative to its running mean."""
    decay: Annotated[float, BELOW_ONE] = 0.95
    """Decay of the running mean of lengths, which begins at 1, in [0, 1)."""
    window: Annotated[int, at_least(0, "any number")] = 3
    """Conflicts in a row in which one task's gradient may be the kept one; it is reduced in the next. 0 for
    any number."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.critical < self.main < self.weak:
            raise ConfigError(
                f"critical={self.critical}, main={self.main}, weak={self.weak}; expected rising cosines"
            )


class GCond(Weighting[GCondConfig]):
    """The arbitration of "GCond: Gradient Conflict Resolution via Accumulation-based Stabilization"
    (Limarenko and Studenikina 2025, arXiv 2509.07252); `GradientSurgery.gather` is the accumulation.

    The worst pair is resolved until its cosine reaches `weak`, at most 2 K times. Where the paper is silent
    or differs this is the authors' code (github.com/AlevLab-dev/GCond, smooth logic): there lengths and
    cosines with the step before are recomputed after every projection, the step before is kept as projected,
    strengths are shared out between a pair and cosines are not, a task that won `window` conflicts in a row
    loses the next, and the running means of lengths begin at 1. Its floor of 1e-8 on squared lengths is
    relative here, a gradient of which 1e-4 is left counts as gone, so that small losses are not cut off; its
    momentum and trust ratio are left to the optimiser.
    """

    needs_previous = True
    state_names = ("usual", "winners", "moved", "squares")

    def __init__(self, config: GCondConfig, tasks: int, seed: int) -> None:
        super().__init__(config, tasks, seed)
        self.usual = np.ones(tasks)
        """Running means of the gradients' lengths."""
        self.winners = np.zeros(0, dtype=np.int64)
        """Tasks whose gradients were kept in the latest conflicts, at most `window`."""
        self.moved: np.ndarray = np.eye(tasks)
        """[K, K], in row i the latest g_i' in terms of that step's gradients."""
        self.squares: np.ndarray = np.zeros(tasks)
        """[K], their squared lengths."""

    def weights(self, inputs: WeightingInputs) -> np.ndarray:
        gramian = require_gramian(inputs)
        count, self.deficient = len(gramian), False
        own = np.diag(gramian)
        # m_i <- beta m_i + (1 - beta) |g_i|
        self.usual = self.config.decay * self.usual + (1 - self.config.decay) * np.sqrt(own)
        # inner products of the gradients with the g_i' of the step before
        earlier = np.zeros_like(gramian) if inputs.previous is None else inputs.previous @ self.moved.T
        # row i of `moved` is g_i' in terms of the gradients, `current` the Gramian of g_1' .. g_K'
        moved, current = np.eye(count), gramian.copy()
        for _ in range(2 * count):
            squares = np.diag(current)
            left = squares > _GONE * own
            scale = np.sqrt(np.outer(squares.clip(0), squares.clip(0)))
            cosine = np.divide(current, scale, out=np.ones_like(current), where=np.outer(left, left))
            np.fill_diagonal(cosine, 1.0)
            pair = np.array(np.unravel_index(int(np.argmin(cosine)), cosine.shape))
            worst = float(cosine[pair[0], pair[1]])
            if worst >= self.config.weak - 1e-9:
                break
            self.deficient |= bool(np.count_nonzero(cosine < worst + _TIE) > 2)
            products = np.einsum("im,mi->i", moved[pair], earlier[:, pair])
            kept, reduced = self._kept_and_reduced(pair, np.sqrt(squares[pair]), products)
            angle = self._angle(worst)
            along = current[kept, reduced]
            before = moved[[kept, reduced]].copy()
            # reduced: g_r' = g_r - sin(min(angle, pi / 2)) (g_r . g_k) / |g_k|^2 g_k
            moved[reduced] -= np.sin(min(angle, np.pi / 2)) * along / current[kept, kept] * before[0]
            # kept: g_k' = g_k - sin(angle) (g_r . g_k) / |g_r|^2 g_r, unchanged where angle = pi
            moved[kept] -= np.sin(angle) * along / current[reduced, reduced] * before[1]
            for changed in (reduced, kept):
                current[changed] = current[:, changed] = moved @ (gramian @ moved[changed])
        self.moved, self.squares = moved, np.diag(current).clip(0)
        weights: np.ndarray = moved.sum(axis=0)
        self.deficient |= cancels(weights, gramian)
        return weights

    def _kept_and_reduced(
        self, pair: np.ndarray, lengths: np.ndarray, products: np.ndarray
    ) -> tuple[int, int]:
        """The task whose gradient is kept, and the other; of both, |g_i'| and the inner product of g_i' with
        that of the step before.
        """
        # strength: |g_i'| / m_i, shared out between the two
        strength = lengths / self.usual[pair]
        # stability: the cosine of g_i' with that of the step before, at least 0
        scale = lengths * np.sqrt(self.squares[pair])
        stability = np.divide(products, scale, out=np.zeros(2), where=scale > 0).clip(0)
        scores = self.config.stability * stability + self.config.strength * strength / strength.sum()
        self.deficient |= bool(abs(scores[0] - scores[1]) < _TIE)
        first, second = int(pair[0]), int(pair[1])
        kept, reduced = (first, second) if scores[0] >= scores[1] else (second, first)
        window = self.config.window
        if window:
            if len(self.winners) == window and bool((self.winners == kept).all()):
                kept, reduced = reduced, kept
            self.winners = np.append(self.winners, kept)[-window:]
        return kept, reduced

    def _angle(self, cosine: float) -> float:
        """pi below `critical`, pi / 2 at `main`, 0 at `weak`; it grows with the conflict."""
        c = self.config
        if cosine < c.critical:
            return float(np.pi)
        if cosine < c.main:
            depth = (cosine - c.main) / (c.critical - c.main)
            return float(np.pi / 2 + np.pi / 2 * depth**c.exponent)
        return float(np.pi / 2 * (1 - (cosine - c.main) / (c.weak - c.main)))
