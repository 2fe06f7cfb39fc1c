"""Micro-batches before a step, averages of cosines after it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mtrl.errors import UnsupportedError
from mtrl.gradients import GradientSurgery, SurgeryConfig, WeightingInputs, make_weighting

from .networks import INPUTS, TASKS, twins


def test_gathered_micro_batches_are_one_large_batch() -> None:
    net, _ = twins(2)

    def losses(*batches: torch.Tensor) -> torch.Tensor:
        return torch.stack([net(batch).square().mean((0, 2)) for batch in batches]).mean(0)

    parts = [INPUTS, INPUTS + 1, 0.5 * INPUTS]
    whole = GradientSurgery(net, SurgeryConfig("mgda"), TASKS).step(losses(*parts))
    surgery = GradientSurgery(net, SurgeryConfig("mgda"), TASKS)
    for _ in range(2):  # nothing of the first time is left in the second
        surgery.gather(losses(parts[0]))
        surgery.gather(losses(parts[1]))
        found = surgery.step(losses(parts[2]))
    assert torch.allclose(found.weights, whole.weights, atol=1e-8)
    assert torch.allclose(found.losses, whole.losses)
    for name, value in whole.gradients.items():
        assert torch.allclose(found.gradients[name], value, atol=1e-9), name
    with pytest.raises(UnsupportedError, match="gathering micro-batches needs all rows"):
        GradientSurgery(net, SurgeryConfig("mgda", memory_mb=1e-6), TASKS).gather(losses(INPUTS))


def test_a_task_that_won_a_whole_window_gives_way_once() -> None:
    rows = np.array([[1.0, 0.0], [-0.9, np.sqrt(1 - 0.81)]])
    weighting = make_weighting("gcond", 2, options={"window": 2})
    found = [weighting.weights(WeightingInputs(np.ones(2), rows @ rows.T)).tolist() for _ in range(4)]
    # as steady and as strong: the first wins. It keeps all, the other is projected.
    # task 0 wins twice, then task 1, then task 0 again
    assert found[0] == found[1] == pytest.approx([1.9, 1.0])
    assert found[2] == pytest.approx([1.0, 1.9])
    assert found[3] == pytest.approx([1.9, 1.0])


def test_cosines_are_averaged_until_they_are_taken_and_survive_a_resume() -> None:
    direction = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    first = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]], dtype=torch.float64)
    second = torch.tensor([[1.0, 0.0], [-3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)

    def surgery() -> GradientSurgery:
        return GradientSurgery({"direction": direction}, SurgeryConfig("pcgrad"), 3)

    started, resumed = surgery(), surgery()
    assert started.take_cosines() is None
    started.step((first * direction).sum(1))
    resumed.load_state_dict(started.state_dict())
    resumed.step((second * direction).sum(1))
    found = resumed.take_cosines()
    # cosines 0 and -3/5; the third task never had a gradient
    assert found is not None and found[0, 1] == pytest.approx(-0.3)
    assert np.isnan(found[2]).all() and np.isnan(found[:, 2]).all()
    assert resumed.take_cosines() is None
