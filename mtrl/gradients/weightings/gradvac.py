"""GradVac: gradients are moved towards a similarity that is learnt per pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from mtrl.structured import UNIT, Checked

from .base import GramianWeighting
from .pcgrad import random_orders


@dataclass(frozen=True)
class GradVacConfig(Checked):
    decay: Annotated[float, UNIT] = 0.5
    """Share of the newest cosine in the running target, in [0, 1]. Common implementations take 0.5, the paper
    0.01."""


class GradVac(GramianWeighting[GradVacConfig]):
    """Algorithm 1 of "Gradient Vaccine" (Wang et al. 2021, arXiv 2010.05874).

    Where the cosine of two gradients lies below its running mean, the first is moved towards the second until
    it reaches that mean. With a target of 0 this is PCGrad.
    """

    state_names = ("step", "targets")

    def __init__(self, config: GradVacConfig, tasks: int, seed: int) -> None:
        super().__init__(config, tasks, seed)
        self.targets = np.zeros((tasks, tasks))

    def solve(self, gramian: np.ndarray, active: np.ndarray) -> np.ndarray:
        count = len(gramian)
        orders = random_orders(self.seed, self.step, count)
        self.step += 1
        targets = self.targets[np.ix_(active, active)]
        # row i of `coefficients` is g_i' in terms of the gradients; `products` are its inner products with
        # them, and `squares` its own
        coefficients = np.eye(count)
        products = gramian.copy()
        norms = np.sqrt(np.diag(gramian))
        squares = np.diag(gramian).copy()
        rows = np.arange(count)
        for others in orders.T:
            others_norms = norms[others]
            own_norms = np.sqrt(np.maximum(squares, 0.0))
            # phi_ij = g_i' . g_j / (|g_i'| |g_j|)
            scale = own_norms * others_norms
            cosine = np.divide(products[rows, others], scale, out=np.zeros(count), where=scale > 0)
            cosine = np.clip(cosine, -1.0, 1.0)
            # g_i' += a g_j with a = |g_i'| (phi^T sqrt(1 - phi^2) - phi sqrt(1 - phi^T^2))
            # / (|g_j| sqrt(1 - phi^T^2)) where phi < phi^T
            target = targets[rows, others]
            sine = np.sqrt(np.maximum(1 - target**2, 1e-12))
            amount = own_norms * (target * np.sqrt(1 - cosine**2) - cosine * sine) / (others_norms * sine)
            amount = np.where((cosine < target) & (others != rows), amount, 0.0)
            squares += 2 * amount * products[rows, others] + amount**2 * np.diag(gramian)[others]
            coefficients[rows, others] += amount
            products += amount[:, None] * gramian[others]
            # phi^T <- (1 - beta) phi^T + beta phi
            targets[rows, others] = (1 - self.config.decay) * target + self.config.decay * cosine
        self.targets[np.ix_(active, active)] = targets
        weights: np.ndarray = coefficients.sum(axis=0)
        return weights
