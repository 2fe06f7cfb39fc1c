"""GCond: conflicts resolved pair by pair; the more persistent gradient changes less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from mtrl.errors import ConfigError
from mtrl.structured import BELOW_ONE, POSITIVE, Checked, at_least

from .base import Weighting, WeightingInputs, require_gramian


@dataclass(frozen=True)
class GCondConfig(Checked):
    """Settings of GCond; cosines run from -1 to 1, critical < main < weak."""

    critical: float = -0.8
    """Cosine below which only the reduced gradient is projected, in full, and the kept one is unchanged."""
    main: float = -0.5
    """Cosine at which both gradients are projected in full; towards `weak` both projections shrink to none,
    towards `critical` that of the kept gradient alone."""
    weak: float = 0.0
    """Cosine above which gradients do not conflict."""
    exponent: Annotated[float, POSITIVE] = 2.0
    """Exponent of the angle's growth from pi / 2 at `main` to pi at `critical`, above 0."""
    stability: Annotated[float, at_least(0)] = 0.8
    """Weight of a gradient's cosine with that of the step before, in the choice of the gradient that is
    kept, at least 0."""
    strength: Annotated[float, at_least(0)] = 0.2
    """Weight of its length relative to its running mean, at least 0."""
    decay: Annotated[float, BELOW_ONE] = 0.9
    """Decay of the running mean of lengths, in [0, 1)."""
    window: Annotated[int, at_least(0, "none")] = 0
    """Conflicts in a row in which one task's gradient may be the kept one; it is reduced in the next. 0 for
    any number."""

    def __post_init__(self) -> None:
        if not -1 <= self.critical < self.main < self.weak <= 1:
            raise ConfigError(
                f"critical={self.critical}, main={self.main}, weak={self.weak}; expected rising cosines"
            )
        super().__post_init__()


class GCond(Weighting[GCondConfig]):
    """The arbitration of "GCond: Gradient Conflict Resolution via Accumulation-based Stabilization"
    (Limarenko and Studenikina 2025, arXiv 2509.07252); `GradientSurgery.gather` is the accumulation.

    The worst pair is resolved until its cosine reaches `weak`.
    """

    needs_persistence = True
    state_names = ("usual", "winners")

    def __init__(self, config: GCondConfig, tasks: int, seed: int) -> None:
        super().__init__(config, tasks, seed)
        self.usual = np.zeros(tasks)
        """Running means of the gradients' lengths."""
        self.winners = np.zeros(0, dtype=np.int64)
        """Tasks whose gradients were kept in the latest conflicts, at most `window`."""

    def weights(self, inputs: WeightingInputs) -> np.ndarray:
        gramian = require_gramian(inputs)
        count, decay = len(gramian), self.config.decay
        persistence = inputs.persistence if inputs.persistence is not None else np.zeros(count)
        lengths = np.sqrt(np.diag(gramian))
        # strength: |g_i| over its running mean m_i <- beta m_i + (1 - beta) |g_i|
        self.usual = np.where(self.usual > 0, decay * self.usual + (1 - decay) * lengths, lengths)
        strength = np.divide(lengths, self.usual, out=np.zeros(count), where=self.usual > 0)
        # row i of `coefficients` is g_i' in terms of the gradients, `current` the Gramian of g_1' .. g_K'
        coefficients = np.eye(count)
        current = gramian.copy()
        for _ in range(count * (count - 1)):
            norms = np.sqrt(np.maximum(np.diag(current), 0.0))
            scale = np.outer(norms, norms)
            cosine = np.divide(current, scale, out=np.ones_like(current), where=scale > 1e-12 * scale.max())
            np.fill_diagonal(cosine, 1.0)
            first, second = np.unravel_index(int(np.argmin(cosine)), cosine.shape)
            worst = float(cosine[first, second])
            if worst >= self.config.weak - 1e-9:
                break
            kept, reduced = self._kept_and_reduced(persistence, strength, [int(first), int(second)])
            angle = self._angle(worst)
            along = current[kept, reduced]
            before = coefficients[[kept, reduced]].copy()
            # reduced: g_r' = g_r - sin(min(angle, pi / 2)) (g_r . g_k) / |g_k|^2 g_k
            coefficients[reduced] -= np.sin(min(angle, np.pi / 2)) * along / current[kept, kept] * before[0]
            # kept: g_k' = g_k - sin(angle) (g_r . g_k) / |g_r|^2 g_r, unchanged where angle = pi
            coefficients[kept] -= np.sin(angle) * along / current[reduced, reduced] * before[1]
            for changed in (reduced, kept):
                current[changed] = current[:, changed] = coefficients @ (gramian @ coefficients[changed])
        weights: np.ndarray = coefficients.sum(axis=0)
        return weights

    def _kept_and_reduced(
        self, persistence: np.ndarray, strength: np.ndarray, pair: list[int]
    ) -> tuple[int, int]:
        """The task of the higher score and the other; a score is the task's part of the pair's persistence
        and strength.
        """
        scores = np.zeros(2)
        for share, values in (
            (self.config.stability, np.maximum(persistence[pair], 0.0)),
            (self.config.strength, strength[pair]),
        ):
            if values.sum() > 0:
                scores += share * values / values.sum()
        kept, reduced = pair if scores[0] >= scores[1] else pair[::-1]
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
