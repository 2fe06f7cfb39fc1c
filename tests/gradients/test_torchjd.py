"""Weights against those that TorchJD finds, on Gramians of many shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mtrl.gradients import WeightingInputs, make_weighting

aggregation: Any = pytest.importorskip(
    "torchjd.aggregation",
    reason="needs TorchJD; mend: .venv/bin/pip install -c constraints.txt 'torchjd[quadprog_projector]'",
)

MAKERS: dict[str, tuple[Callable[[], Any], float]] = {
    "upgrad": (lambda: aggregation.UPGradWeighting(), 1e-5),
    "dualproj": (lambda: aggregation.DualProjWeighting(), 1e-5),
    "imtl_g": (lambda: aggregation.IMTLGWeighting(), 1e-6),
    "aligned_mtl": (lambda: aggregation.AlignedMTLWeighting(), 1e-6),
    "fairgrad": (lambda: aggregation.FairGradWeighting(alpha=1.0), 1e-4),
}


def gramian_of(kind: str, tasks: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(tasks, 40))
    if kind == "lengths":
        rows = rows * np.logspace(-1, 1, tasks)[:, None]
    elif kind == "conflict":
        rows = rows - 1.02 * rows.mean(0)
    return rows @ rows.T


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("kind", ["plain", "lengths", "conflict"])
@pytest.mark.parametrize("tasks", [2, 5, 12])
def test_weights_agree(name: str, kind: str, tasks: int) -> None:
    maker, tolerance = MAKERS[name]
    gramian = gramian_of(kind, tasks, tasks)
    ours = make_weighting(name, tasks).weights(WeightingInputs(np.ones(tasks), gramian))
    theirs = maker()(torch.from_numpy(gramian)).double().numpy()
    assert ours == pytest.approx(theirs, rel=tolerance, abs=tolerance * float(np.abs(theirs).max()))


@pytest.mark.parametrize("tasks", [2, 5, 12])
def test_config_agrees(tasks: int) -> None:
    rows = np.random.default_rng(tasks).normal(size=(tasks, 40)) - 0.5
    ours = make_weighting("config", tasks).weights(WeightingInputs(np.ones(tasks), rows @ rows.T)) @ rows
    theirs = aggregation.ConFIG()(torch.from_numpy(rows)).numpy()
    assert ours == pytest.approx(theirs, abs=1e-6)
