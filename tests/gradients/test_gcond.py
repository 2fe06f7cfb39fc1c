"""GCond on Gramians is the authors' loop over vectors."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from mtrl.errors import OutOfRangeError
from mtrl.gradients import WeightingInputs, make_weighting


class OnVectors:
    """The arbitration as the authors' code does it, on the gradients themselves."""

    def __init__(self, tasks: int) -> None:
        self.usual, self.winners = np.ones(tasks), deque[int](maxlen=3)
        self.before: np.ndarray | None = None

    def update(self, rows: np.ndarray) -> np.ndarray:
        moved = rows.copy()
        self.usual = 0.95 * self.usual + 0.05 * np.linalg.norm(rows, axis=1)
        for _ in range(2 * len(rows)):
            units = moved / np.linalg.norm(moved, axis=1, keepdims=True)
            cosine = units @ units.T + 2 * np.tril(np.ones((len(rows), len(rows))))
            i, j = (int(place) for place in np.unravel_index(int(cosine.argmin()), cosine.shape))
            if cosine[i, j] >= -1e-9:
                break
            kept, reduced = self.arbitrate(moved, i, j)
            self.winners.append(kept)
            angle = self.angle(cosine[i, j])
            product = moved[i] @ moved[j]
            kept_row, reduced_row = moved[kept].copy(), moved[reduced].copy()
            moved[kept] -= np.sin(angle) * product / (reduced_row @ reduced_row) * reduced_row
            moved[reduced] -= np.sin(min(angle, np.pi / 2)) * product / (kept_row @ kept_row) * kept_row
        self.before = moved
        return moved.sum(0)

    def arbitrate(self, moved: np.ndarray, i: int, j: int) -> tuple[int, int]:
        for one, other in ((i, j), (j, i)):
            if len(self.winners) == 3 and self.winners.count(one) == 3:
                return other, one
        strength = np.array([np.linalg.norm(moved[k]) / self.usual[k] for k in (i, j)])
        scores = 0.2 * strength / strength.sum()
        for place, k in enumerate((i, j)):
            if self.before is not None:
                scale = np.linalg.norm(moved[k]) * np.linalg.norm(self.before[k])
                scores[place] += 0.8 * max(0.0, moved[k] @ self.before[k] / scale)
        return (j, i) if scores[1] > scores[0] else (i, j)

    @staticmethod
    def angle(cosine: float) -> float:
        if cosine >= -0.5:
            return np.pi / 2 * (1 - (cosine + 0.5) / 0.5)
        return np.pi if cosine <= -0.8 else np.pi / 2 + np.pi / 2 * ((cosine + 0.5) / -0.3) ** 2


@pytest.mark.parametrize("tasks", [2, 3, 6, 10])
def test_updates_are_those_of_the_authors_code(tasks: int) -> None:
    for seed in range(20):
        generator = np.random.default_rng([tasks, seed])
        weighting, theirs = make_weighting("gcond", tasks), OnVectors(tasks)
        base, previous = generator.normal(size=(tasks, 12)), None
        for _ in range(5):
            rows = base + 0.7 * generator.normal(size=base.shape)
            rows = (rows - 0.9 * (seed % 2) * rows.mean(0)) * generator.uniform(0.5, 2.0, (tasks, 1))
            products = None if previous is None else rows @ previous.T
            weights = weighting.weights(WeightingInputs(np.ones(tasks), rows @ rows.T, products))
            assert weights @ rows == pytest.approx(theirs.update(rows), rel=1e-6, abs=1e-6)
            previous = rows


def test_the_steadier_gradient_wins() -> None:
    rows = np.array([[1.0, 0.0], [-0.9, np.sqrt(1 - 0.81)]])
    weighting = make_weighting("gcond", 2)
    earlier = np.array([[2.0, 0.0], [1.0, -1.0]])
    weighting.weights(WeightingInputs(np.ones(2), earlier @ earlier.T))
    weights = weighting.weights(WeightingInputs(np.ones(2), rows @ rows.T, rows @ earlier.T))
    # cosine -.9 is critical: the winner, task 0, keeps all, the loser is projected: g_1 + .9 g_0
    assert weights == pytest.approx((1.9, 1.0))


@pytest.mark.parametrize(
    "options",
    [
        {"decay": 1.0},
        {"exponent": 0.0},
        {"stability": -0.1},
        {"strength": -1.0},
        {"weak": 1.1},
        {"window": -1},
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(OutOfRangeError):
        make_weighting("gcond", 2, options=options)
