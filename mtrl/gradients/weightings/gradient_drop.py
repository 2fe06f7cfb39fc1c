"""GradDrop: every coordinate keeps the gradients of one sign, drawn by how much the tasks agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mtrl.errors import OutOfRangeError

from .base import Evidence, Weighting


@dataclass(frozen=True)
class GradDropConfig:
    """Settings of GradDrop."""

    leak: float = 0.0
    """Share of the plain sum that is mixed in, in [0, 1]; the paper's per-task leak, alike for all."""

    def __post_init__(self) -> None:
        if not 0 <= self.leak <= 1:
            raise OutOfRangeError("leak", self.leak, "a number from 0 to 1")


class GradDrop(Weighting):
    """Algorithm 1 of "Just Pick a Sign" (Chen et al. 2020, arXiv 2010.06808), on parameters' gradients.

    P = (1 + sum g / sum |g|) / 2 per coordinate; positive parts stay where P > U, negative ones where P < U,
    U uniform. No weights exist: it works on the rows themselves.
    """

    needs_rows = True

    def __init__(self, config: GradDropConfig, tasks: int, seed: int) -> None:
        super().__init__(tasks)
        self.config = config
        self.seed = seed
        self.step = 0

    def weights(self, evidence: Evidence) -> np.ndarray:
        return np.ones(self.tasks)

    def combine(self, rows: torch.Tensor) -> torch.Tensor:
        """[*shape] from one parameter's rows [K, *shape]; draws from the step's own stream."""
        total = rows.sum(0)
        purity = 0.5 * (1 + total / rows.abs().sum(0).clamp_min(torch.finfo(rows.dtype).tiny))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        self.step += 1
        drawn = torch.rand(total.shape, generator=generator, dtype=torch.float64).to(rows)
        positive = rows.clamp_min(0).sum(0)
        kept = torch.where(purity > drawn, positive, total - positive)
        return self.config.leak * total + (1 - self.config.leak) * kept

    def _state_names(self) -> tuple[str, ...]:
        return ("step",)
