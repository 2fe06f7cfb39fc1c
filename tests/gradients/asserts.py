"""Mathematical properties that weightings have or have not, as asserts on Gramians."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mtrl.gradients import WeightingInputs, make_weighting


def weights_of(name: str, gramian: np.ndarray, options: Mapping[str, object] | None = None) -> np.ndarray:
    weighting = make_weighting(name, len(gramian), 0, options)
    return weighting.weights(WeightingInputs(np.ones(len(gramian)), gramian))


def assert_non_conflicting(name: str, rows: np.ndarray, tolerance: float = 1e-8) -> None:
    """No gradient has a negative product with the update."""
    gramian = rows @ rows.T
    products = gramian @ weights_of(name, gramian)
    assert products.min() >= -tolerance * np.trace(gramian)


def assert_permutation_invariant(name: str, rows: np.ndarray) -> None:
    """The order of the tasks does not matter."""
    order = np.random.default_rng(1).permutation(len(rows))
    straight = weights_of(name, rows @ rows.T)
    shuffled = weights_of(name, rows[order] @ rows[order].T)
    assert np.allclose(shuffled, straight[order], rtol=1e-6, atol=1e-8)


def assert_homogeneous(name: str, rows: np.ndarray, degree: float) -> None:
    """The update of gradients times s is the update times s to the `degree`."""
    straight = weights_of(name, rows @ rows.T) @ rows
    scaled = weights_of(name, 9.0 * rows @ rows.T) @ (3.0 * rows)
    assert np.allclose(scaled, 3.0**degree * straight, rtol=1e-6, atol=1e-8)


def assert_linear_under_scaling(name: str, rows: np.ndarray) -> None:
    """The update is linear in a positive scaling c of the gradients: A(diag(c1 + c2) J) = A(c1) + A(c2)."""
    generator = np.random.default_rng(2)
    first, second = generator.uniform(0.5, 2.0, (2, len(rows)))

    def update(scale: np.ndarray) -> np.ndarray:
        scaled = scale[:, None] * rows
        return weights_of(name, scaled @ scaled.T) @ scaled

    assert np.allclose(update(first) + update(second), update(first + second), rtol=1e-2, atol=1e-2)
