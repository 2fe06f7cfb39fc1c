"""PCGrad: conflicting gradients are projected onto each other's normal planes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import GramianWeighting


@dataclass(frozen=True)
class PCGradConfig:
    """Settings of PCGrad; the paper has none but the order, which is random."""

    mean: bool = False
    """Whether the projected gradients are averaged rather than summed as in the paper's algorithm 1."""


class PCGrad(GramianWeighting):
    """Algorithm 1 of "Gradient Surgery for Multi-Task Learning" (Yu et al. 2020, arXiv 2001.06782).

    Each gradient in turn loses its component along every other one that it points against, in an order of its
    own. All K are projected side by side: of d_i only its inner products with all gradients are kept.
    """

    def __init__(self, config: PCGradConfig, tasks: int, seed: int) -> None:
        super().__init__(tasks)
        self.config = config
        self.seed = seed
        self.step = 0

    def solve(self, gramian: np.ndarray, active: np.ndarray) -> np.ndarray:
        count = len(gramian)
        orders = np.random.default_rng([self.seed, self.step]).permuted(
            np.tile(np.arange(count), (count, 1)), axis=1
        )
        self.step += 1
        weights = project(gramian, orders)
        return weights / count if self.config.mean else weights

    def _state_names(self) -> tuple[str, ...]:
        return ("step",)


def project(gramian: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """[K], the sum of the projected gradients as weights; row i of `orders` [K, K] is the order of gradient
    i.
    """
    count = len(gramian)
    rows = np.arange(count)
    products = gramian.copy()
    flat = products.reshape(-1)
    places = orders.T + count * rows
    inverses = np.reciprocal(-np.diag(gramian))[orders.T]
    inverses[rows == orders.T] = 0.0
    steps = gramian[orders.T]
    amounts = np.zeros((count, count))
    for place, inverse, step, amount in zip(places, inverses, steps, amounts, strict=True):
        np.multiply(flat[place], inverse, out=amount)
        np.maximum(amount, 0.0, out=amount)
        step *= amount[:, None]
        products += step
    added: np.ndarray = np.bincount(orders.T.reshape(-1), amounts.reshape(-1), count)
    return 1.0 + added
