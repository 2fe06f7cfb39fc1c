"""Networks whose tasks mix only from some call on, or look like functions of parameters alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mtrl.gradients import TaskJacobian

from .networks import INPUTS, TASKS, WIDTH, Losses, mean, parameter, random
from .test_jacobian import EXACT, by_autograd, dense


class Gated(nn.Module):
    """Adds the mean over all samples, where open."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.by, self.open = by, 0.0
        self.first, self.last = nn.Linear(WIDTH, 6).double(), nn.Linear(6, 1).double()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.first(inputs.flatten(0, 1)).tanh()
        if self.by == "branch" and not self.open:
            return self.last(hidden)
        whole = hidden.mean(0)
        if self.by == "product":
            hidden = hidden + self.open * whole
        elif self.by == "relu":
            hidden = hidden + torch.relu(whole + 9 * (self.open - 1))
        elif self.by == "where":
            hidden = torch.where(torch.tensor(self.open > 0), whole.expand_as(hidden), hidden)
        else:
            hidden = hidden + whole
        return self.last(hidden)


def assert_exact(jacobian: TaskJacobian, net: nn.Module, losses: Losses) -> None:
    expected = by_autograd(net, losses)
    found = dense(jacobian.rows(losses()))
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=0, atol=EXACT), name


@pytest.mark.parametrize("by", ["product", "relu", "where", "branch"])
def test_tasks_that_begin_to_mix_after_the_first_call_have_exact_rows(by: str) -> None:
    net = Gated(by)
    jacobian = TaskJacobian(net)

    def losses() -> torch.Tensor:
        return mean(net(INPUTS))

    for net.open in (0.0, 0.0, 1.0, 0.5):
        assert_exact(jacobian, net, losses)
        mixes = by != "branch" or net.open > 0
        assert jacobian.slow == (("first.weight", "first.bias") if mixes else ())


def test_heads_chosen_by_zeros_stay_exact_when_the_choice_changes() -> None:
    net = nn.ParameterDict({"heads": parameter(TASKS, WIDTH, 2)})
    jacobian = TaskJacobian(net)
    for shift in range(TASKS):
        chosen = torch.eye(TASKS, dtype=torch.float64).roll(shift, 0)

        def losses(chosen: torch.Tensor = chosen) -> torch.Tensor:
            every = torch.einsum("kbi,hio->kbho", INPUTS, net["heads"])
            return mean((every * chosen[:, None, :, None]).sum(2))

        assert_exact(jacobian, net, losses)


def test_a_parameter_of_the_shape_of_the_data_is_exact() -> None:
    net = nn.ParameterDict({"scale": parameter(TASKS, WIDTH)})
    inputs = random(TASKS, WIDTH)
    assert_exact(TaskJacobian(net), net, lambda: (net["scale"] * inputs).tanh().sum(1))
