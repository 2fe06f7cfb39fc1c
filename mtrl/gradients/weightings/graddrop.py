"""GradDrop: every coordinate keeps the gradients of one sign, drawn by how much the tasks agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch

from mtrl.structured import UNIT, Checked

from .base import Weighting, WeightingInputs


@dataclass(frozen=True)
class GradDropConfig(Checked):
    leak: Annotated[float, UNIT] = 0.0
    """Share of the plain sum that is mixed in, in [0, 1]; the paper's per-task leak, alike for all."""


class GradDrop(Weighting[GradDropConfig]):
    """Algorithm 1 of "Just Pick a Sign" (Chen et al. 2020, arXiv 2010.06808), on parameters' gradients."""

    needs_rows = True
    state_names = ("step",)

    def weights(self, inputs: WeightingInputs) -> np.ndarray:
        return np.ones(self.tasks)

    def combine(self, rows: torch.Tensor) -> torch.Tensor:
        """[*shape] from one parameter's rows [K, *shape]; each call draws from a random stream of its own."""
        total = rows.sum(0)
        # equation 1 of Chen et al.: the sign purity P = (1 + sum g / sum |g|) / 2 of every coordinate
        purity = 0.5 * (1 + total / rows.abs().sum(0).clamp_min(torch.finfo(rows.dtype).tiny))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        self.step += 1
        drawn = torch.rand(total.shape, generator=generator, dtype=torch.float64).to(rows)
        # the mask keeps g > 0 where P > U and g < 0 where P < U, U uniform
        positive = rows.clamp_min(0).sum(0)
        kept = torch.where(purity > drawn, positive, total - positive)
        # l g + (1 - l) M g, the leak l mixing in what the mask drops
        return self.config.leak * total + (1 - self.config.leak) * kept
