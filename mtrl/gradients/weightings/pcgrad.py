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


class PCGrad(GramianWeighting[PCGradConfig]):
    """Algorithm 1 of "Gradient Surgery for Multi-Task Learning" (Yu et al. 2020, arXiv 2001.06782).

    All K gradients are projected side by side, each in an order of its own.
    """

    state_names = ("step",)

    def solve(self, gramian: np.ndarray, active: np.ndarray) -> np.ndarray:
        weights = project(gramian, random_orders(self.seed, self.step, len(gramian)))
        self.step += 1
        return weights / len(gramian) if self.config.mean else weights


def random_orders(seed: int, step: int, count: int) -> np.ndarray:
    """[count, count], in row i the order in which gradient i is projected by all at a step."""
    rows = np.tile(np.arange(count), (count, 1))
    return np.random.default_rng([seed, step]).permuted(rows, axis=1)


def project(gramian: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """[K], the sum of the projected gradients as weights; row i of `orders` [K, K] is the order of gradient
    i.
    """
    count = len(gramian)
    rows = np.arange(count)
    # of g_i^PC only its inner products with all gradients are kept, as row i
    products = gramian.copy()
    flat = products.reshape(-1)
    places = orders.T + count * rows
    # -1 / |g_j|^2 of the gradient j of each turn, 0 where that is gradient i itself
    inverses = np.reciprocal(-np.diag(gramian))[orders.T]
    inverses[rows == orders.T] = 0.0
    steps = gramian[orders.T]
    amounts = np.zeros((count, count))
    for place, inverse, step, amount in zip(places, inverses, steps, amounts, strict=True):
        # where g_i^PC . g_j < 0: g_i^PC <- g_i^PC - (g_i^PC . g_j) / |g_j|^2 g_j
        np.multiply(flat[place], inverse, out=amount)
        np.maximum(amount, 0.0, out=amount)
        step *= amount[:, None]
        products += step
    # the update sum_i g_i^PC: every gradient once, and what was added to it
    added: np.ndarray = np.bincount(orders.T.reshape(-1), amounts.reshape(-1), count)
    return 1.0 + added
