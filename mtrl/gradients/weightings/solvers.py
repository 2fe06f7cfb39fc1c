"""Small exact solvers for K x K problems, sound on Gramians without full rank."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from .base import RANK_TOLERANCE


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
    """M^+ 1 [K], 0 where no combination of the columns is near 1, and whether M lacks full rank."""
    values, vectors, deficient = positive_spectrum(matrix)
    parts = vectors.sum(axis=0)
    if parts @ parts <= RANK_TOLERANCE * len(matrix):
        return np.zeros(len(matrix)), True
    solution: np.ndarray = vectors @ (parts / values)
    return solution, deficient


def independent_parts(gramian: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Singular values [r] and vectors [K, r] of A with A A^T = G, without the directions in which the cosines
    have no eigenvalue, and whether r < K.

    Rank is that of the cosines: gradients of very unlike lengths may still be independent.
    """
    lengths, cosine = cosine_matrix(gramian)
    values, vectors, deficient = positive_spectrum(cosine)
    left, singular, _ = np.linalg.svd(lengths[:, None] * vectors * np.sqrt(values), full_matrices=False)
    return singular, left, deficient


def factor(gramian: np.ndarray) -> np.ndarray:
    """A [r, K] with A^T A = G, from the eigenvalues of the cosines above rounding, so that short gradients
    are as exact as long ones; no length may be 0.
    """
    lengths, cosine = cosine_matrix(gramian)
    values, vectors = np.linalg.eigh(cosine)
    kept = values > np.finfo(np.float64).eps * len(values) * max(values[-1], 0.0)
    rows: np.ndarray = (vectors[:, kept] * np.sqrt(values[kept])).T * lengths
    return rows


def conditioned_root(gramian: np.ndarray, regularisation: float) -> np.ndarray:
    """Upper triangular R [K, K] with R^T R = G / trace(G) + regularisation I."""
    normal = gramian / np.trace(gramian) + regularisation * np.eye(len(gramian))
    root: np.ndarray = np.linalg.cholesky(normal).T
    return root


def regularised(gramian: np.ndarray, amount: float) -> tuple[np.ndarray, bool]:
    """G where it has full rank, else G with a diagonal raised by a share `amount`; and whether it was raised.

    Rank is that of the cosines, as for `independent_parts`.
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
    # in units of the shortest column, and of each column's own length: as well conditioned as their angles
    lengths = np.sqrt(np.sum(columns**2, axis=0))
    shortest = int(np.argmin(lengths))
    if lengths[shortest] == 0.0:
        return np.eye(len(lengths))[shortest]
    shares = lengths[shortest] / lengths
    system = np.vstack([columns / lengths, shares])
    target = np.zeros(len(system))
    target[-1] = 1.0
    solution, _ = nnls(system, target)
    weights: np.ndarray = solution * shares / (solution @ shares)
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
