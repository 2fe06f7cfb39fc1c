"""Gradients at perturbed weights (SAMO)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mtrl.errors import OutOfRangeError, UnsupportedError
from mtrl.gradients import GradientSurgery, SurgeryConfig

from .networks import TASKS, twins

HESSIANS = torch.tensor([[2.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
START = torch.tensor([3.0, 1.0], dtype=torch.float64)


def bowls() -> tuple[nn.Parameter, list[torch.Tensor]]:
    """Two tasks: x^2 and 2 y^2, with gradients (2 x, 0) and (0, 4 y)."""
    point = nn.Parameter(START.clone())
    return point, [HESSIANS[0], HESSIANS[1]]


def test_the_gradient_is_that_of_the_perturbed_weights_by_hand() -> None:
    point, hessian = bowls()

    def loss_of(task: int) -> torch.Tensor:
        return 0.5 * (hessian[task] * point.square()).sum()

    config = SurgeryConfig("sum", perturbation=0.5, perturbation_local=0.2)
    surgery = GradientSurgery({"point": point}, config, 2)
    found = surgery.step(lambda: 0.5 * (HESSIANS * point.square()).sum(1), loss_of)
    # the tasks' gradients are (6, 0) and (0, 4), their mean is (3, 2)
    mean = torch.tensor([3.0, 2.0], dtype=torch.float64)
    expected = torch.zeros(2, dtype=torch.float64)
    for task, own in enumerate(torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)):
        direction = 0.8 * mean + 0.2 * mean.norm() * own
        expected += hessian[task] * (START + 0.5 * direction / direction.norm())
    assert torch.allclose(found.gradients["point"], expected, atol=1e-12)
    # and the weights are where they were, bit for bit; losses are theirs
    assert torch.equal(point.detach(), START)
    assert found.losses.tolist() == pytest.approx([9.0, 2.0])


@pytest.mark.parametrize("method", ["sum", "pcgrad", "famo"])
def test_a_short_step_changes_little_and_heads_move_along_their_own_gradient(method: str) -> None:
    net, losses = twins(2)
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    plain = GradientSurgery(net, SurgeryConfig(method, row_method="backward"), TASKS).step(losses()).gradients
    near = GradientSurgery(net, SurgeryConfig(method, perturbation=1e-9), TASKS)
    far = GradientSurgery(net, SurgeryConfig(method, perturbation=0.5), TASKS)
    found = near.step(losses, lambda task: losses()[task]).gradients
    moved = far.step(losses, lambda task: losses()[task]).gradients
    for name, value in plain.items():
        assert torch.allclose(found[name], value, atol=1e-6), name
        assert not torch.allclose(moved[name], value, atol=1e-3), name
        assert torch.equal(before[name], net.get_parameter(name).detach())


def test_one_task_is_sharpness_aware_minimisation() -> None:
    point = nn.Parameter(START.clone())

    def loss_of(task: int) -> torch.Tensor:
        return 0.5 * (HESSIANS[0] * point.square()).sum()

    surgery = GradientSurgery({"point": point}, SurgeryConfig("sum", perturbation=0.5), 1)
    found = surgery.step(lambda: loss_of(0).unsqueeze(0), loss_of).gradients["point"]
    assert found.tolist() == pytest.approx([7.0, 0.0])  # 2 (3 + .5)


def test_weights_too_coarse_for_the_step_are_refused() -> None:
    net = nn.Linear(3, 1).bfloat16()
    with pytest.raises(
        UnsupportedError, match=r"perturbation=0.003 .*bfloat16 weights.* set agent.precision=fp32"
    ):
        GradientSurgery(net, SurgeryConfig("sum", perturbation=0.003), 2)


def test_what_gives_no_loss_of_a_task_is_refused_with_the_reason() -> None:
    net, losses = twins(2)
    surgery = GradientSurgery(net, SurgeryConfig("pcgrad", perturbation=0.1), TASKS)
    for call in (surgery.step, surgery.rows, surgery.gather):
        with pytest.raises(UnsupportedError, match="needs that task's loss again"):
            call(losses())
    with pytest.raises(UnsupportedError, match="needs all rows"):
        GradientSurgery(net, SurgeryConfig("sum", perturbation=0.1, memory_mb=1e-6), TASKS)
    with pytest.raises(OutOfRangeError, match=r"gradients\.perturbation=-1"):
        SurgeryConfig(perturbation=-1)
    with pytest.raises(OutOfRangeError, match=r"gradients\.perturbation_local=2"):
        SurgeryConfig(perturbation_local=2)
