"""Updates from rows in float32 are those from rows in float64, or are flagged."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mtrl import registry
from mtrl.gradients import TaskRows, WeightingInputs, make_weighting
from mtrl.gradients.weightings.solvers import factor, shortest_in_hull

from .asserts import weights_of

KINDS = ("random", "low rank", "duplicates", "rescaled")


def rows_of(number: int) -> np.ndarray:
    """Gradients [K, P] of 2 to 50 tasks; the kinds take turns."""
    generator = np.random.default_rng([11, number])
    kind, tasks, size = KINDS[number % 4], int(generator.integers(2, 51)), int(generator.integers(2, 2000))
    rows = generator.normal(size=(tasks, size))
    if kind == "low rank":
        rank = int(generator.integers(1, tasks))
        rows = generator.normal(size=(tasks, rank)) @ generator.normal(size=(rank, size))
    elif kind == "duplicates":
        rows = rows[generator.integers(0, max(1, tasks // 2), tasks)]
        rows = rows * generator.choice([-1.0, 1.0, 1.0, 2.0], (tasks, 1))
    elif kind == "rescaled":
        rows = rows * 10.0 ** generator.uniform(-4, 4, (tasks, 1))
    return rows


def update(name: str, rows: torch.Tensor) -> tuple[np.ndarray, bool]:
    """[P] float64, and whether the method says that the gradients leave it open."""
    tasks = len(rows)
    weighting = make_weighting(name, tasks, 1)
    held = TaskRows(tasks, {"weight": rows})
    inputs = WeightingInputs(np.linspace(0.5, 2.0, tasks), held.gramian().numpy())
    weights = torch.from_numpy(weighting.weights(inputs))
    found = weighting.combine(rows) if weighting.needs_rows else held.combine(weights)["weight"]
    return found.double().numpy(), weighting.deficient


@pytest.mark.parametrize("numbers", [range(8), pytest.param(range(8, 500), marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", registry.names("weighting"))
def test_rounding_to_float32_turns_no_update(name: str, numbers: range) -> None:
    for number in numbers:
        rows = torch.from_numpy(rows_of(number))
        exact, _ = update(name, rows)
        found, open_ = update(name, rows.float())
        assert np.isfinite(found).all(), number
        lengths = np.linalg.norm(found) * np.linalg.norm(exact)
        assert open_ or found @ exact >= 0.999 * lengths, (number, found @ exact / lengths)


@pytest.mark.parametrize("name", ["imtl_g", "config", "aligned_mtl"])
@pytest.mark.parametrize("seed", range(5))
def test_more_tasks_than_parameters_count_as_independent_parameters(name: str, seed: int) -> None:
    rows = torch.from_numpy(np.random.default_rng(seed).normal(size=(10, 5)))
    exact, _ = update(name, rows)
    found, open_ = update(name, rows.float())
    assert open_
    assert found == pytest.approx(exact, rel=1e-4, abs=1e-4 * float(np.abs(exact).max()))


def test_aligned_mtl_keeps_a_short_gradient_that_is_independent() -> None:
    rows = np.array([[1e5, 0.0, 0.0], [0.0, 1.0, 0.0]])
    # orthogonal already: all as long as the shortest, then averaged
    assert weights_of("aligned_mtl", rows @ rows.T) @ rows == pytest.approx([0.5, 0.5, 0.0])


def test_mgda_is_exact_for_gradients_of_very_unlike_lengths() -> None:
    for number in range(3, 200, 4):
        rows = rows_of(number)
        shortest = shortest_in_hull(factor(rows @ rows.T)) @ rows
        # no gradient has a smaller product with the shortest point than that point itself
        assert (rows @ shortest).min() >= (1 - 1e-6) * shortest @ shortest, number


@pytest.mark.parametrize("radius", [0.5, 0.9, 1.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cagrad_stays_in_its_ball_near_pareto_stationarity(radius: float, dtype: torch.dtype) -> None:
    cases = [np.array([[1.3], [-0.7], [-0.6]]) @ np.array([[1.0, 0.3]])]
    for seed in range(30):
        generator = np.random.default_rng(seed)
        rows = generator.normal(size=(10, 4))
        cases += [rows, rows - rows.mean(0) + 10.0 ** generator.uniform(-8, -1) * generator.normal(size=4)]
    for rows in cases:
        held = TaskRows(len(rows), {"weight": torch.from_numpy(rows).to(dtype)})
        weights = weights_of("cagrad", held.gramian().numpy(), {"radius": radius})
        exact = held.shared["weight"].double().numpy()
        average = exact.mean(0)
        moved = np.linalg.norm(weights @ exact - average)
        assert moved <= radius * np.linalg.norm(average) * (1 + 1e-3) + 1e-12
