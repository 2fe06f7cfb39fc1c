"""Small exact solvers for K x K problems, sound on Gramians without full rank."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

RANK_TOLERANCE = 1e-8
"""Eigenvalues below this share of the largest count as zero: rows are float32, squares of 1e-7 are noise."""


def cosine_matrix(gramian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths [K] and cosines [K, K] of the gradients; no length may be 0."""
    lengths = np.sqrt(np.diag(gramian))
    return lengths, gramian / np.outer(lengths, lengths)


def positive_spectrum(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Eigenvalues [r] above rounding, their eigenvectors [K, r], and whether r < K."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > RANK_TOLERANCE * values[-1]
    return values[kept], vectors[:, kept], not bool(kept.all())


def least_norm_solution(matrix: np.ndarray) -> tuple[np.ndarray, bool]:
    """M^+ 1 [K], and whether M lacks full rank."""
    values, vectors, deficient = positive_spectrum(matrix)
    solution: np.ndarray = vectors @ ((vectors.T @ np.ones(len(matrix))) / values)
    return solution, deficient


def factor(gramian: np.ndarray) -> np.ndarray:
    """A [r, K] with A^T A = G, from the eigenvalues above rounding; exists for every Gramian."""
    values, vectors = np.linalg.eigh(gramian)
    kept = values > np.finfo(np.float64).eps * len(values) * max(values[-1], 0.0)
    rows: np.ndarray = (vectors[:, kept] * np.sqrt(values[kept])).T
    return rows


def conditioned_root(gramian: np.ndarray, regularisation: float) -> np.ndarray:
    """Upper triangular R [K, K] with R^T R = G / trace(G) + regularisation I."""
    normal = gramian / np.trace(gramian) + regularisation * np.eye(len(gramian))
    root: np.ndarray = np.linalg.cholesky(normal).T
    return root


def regularised(gramian: np.ndarray, amount: float) -> tuple[np.ndarray, bool]:
    """G where it has full rank, else G with a diagonal raised by a share `amount`; and whether it was raised.

    Rank is that of the cosines: gradients of very unlike lengths may still be independent.
    """
    values = np.linalg.eigvalsh(cosine_matrix(gramian)[1])
    if values[0] > RANK_TOLERANCE * values[-1]:
        return gramian, False
    return gramian + amount * np.diag(np.diag(gramian)), True


def shortest_in_hull(columns: np.ndarray) -> np.ndarray:
    """Weights w >= 0 [K] with sum 1 that make A w shortest; `columns` is A [r, K].

    Least distance as non-negative least squares, after chapter 23 of "Solving Least Squares Problems" (Lawson
    and Hanson 1974), own derivation: the non-negative least squares problem |A u|^2 + (1 - sum u)^2 has its
    minimum along the same direction: for u = s w its value is |A w|^2 / (1 + |A w|^2) at the best s.
    """
    scale = np.sqrt(np.max(np.sum(columns**2, axis=0), initial=0.0))
    count = columns.shape[1]
    if scale == 0.0:
        return np.full(count, 1.0 / count)
    system = np.vstack([columns / scale, np.ones(count)])
    target = np.zeros(len(system))
    target[-1] = 1.0
    solution, _ = nnls(system, target)
    weights: np.ndarray = solution / solution.sum()
    return weights


def shortest_above(root: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """argmin |root v|^2 subject to v >= bound; `root` [r, K], `bound` [K]."""
    excess, _ = nnls(root, -root @ bound)
    above: np.ndarray = bound + excess
    return above


def softmax(logits: np.ndarray) -> np.ndarray:
    """[K], positive with sum 1."""
    raised = np.exp(logits - logits.max())
    shares: np.ndarray = raised / raised.sum()
    return shares


class Adam:
    """Algorithm 1 of "Adam" (Kingma and Ba 2015, arXiv 1412.6980) on a small array, with weight decay."""

    def __init__(self, learning_rate: float, weight_decay: float = 0.0) -> None:
        self.learning_rate, self.weight_decay = learning_rate, weight_decay

    def step(
        self, values: np.ndarray, gradient: np.ndarray, moments: np.ndarray, step: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """New values [K] and moments [2, K]; `step` counts from 1."""
        gradient = gradient + self.weight_decay * values
        first = 0.9 * moments[0] + 0.1 * gradient
        second = 0.999 * moments[1] + 0.001 * gradient**2
        change = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        return values - self.learning_rate * change, np.stack([first, second])
