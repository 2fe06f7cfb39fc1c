"""Experts that a gate chooses once per task."""

from __future__ import annotations

import math

import pytest
import torch

from mtrl.errors import OutOfRangeError
from mtrl.nn import RoutedExperts, RoutedExpertsConfig

TASKS, INPUTS = 3, 5


def experts(seed: int = 0, **changes: object) -> RoutedExperts:
    config = RoutedExpertsConfig(**{"width": 7, "noise": 0.0, **changes})  # type: ignore[arg-type]
    made = RoutedExperts(config, TASKS, INPUTS, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        # gates that differ, norms that do something
        made.by_task.weight.copy_(torch.randn(made.by_task.weight.shape, generator=torch.manual_seed(1)))
        for group in (made.scales, made.shifts, made.biases):
            for value in group:
                value.add_(0.1 * torch.randn(value.shape, generator=torch.manual_seed(2)))
    return made


def one_expert(made: RoutedExperts, index: int, inputs: torch.Tensor) -> torch.Tensor:
    hidden = inputs
    for depth in range(made.config.depth):
        hidden = hidden @ made.weights[depth][index] + made.biases[depth][index, 0]
        hidden = (hidden - hidden.mean(-1, keepdim=True)) / (
            hidden.var(-1, keepdim=True, unbiased=False) + 1e-5
        ).sqrt()
        hidden = hidden * made.scales[depth][index, 0] + made.shifts[depth][index, 0]
        hidden = hidden * torch.sigmoid(hidden)
    return hidden


@pytest.mark.parametrize("state_gate", [False, True])
@pytest.mark.parametrize("shared", [0, 1, 2])
def test_output_is_the_weighted_sum_of_the_chosen_and_the_shared(state_gate: bool, shared: int) -> None:
    made = experts(state_gate=state_gate, shared=shared)
    task, inputs = torch.tensor([2, 0]), torch.randn(2, 4, INPUTS, generator=torch.manual_seed(3))
    found = made(inputs, made.gates(task))
    for row, k in enumerate(task):
        for b in range(4):
            logits = made.by_task.weight[k] / made.config.temperature
            if made.by_state is not None:
                logits = logits + made.by_state(inputs)[row, b]
            probability = torch.softmax(logits, dim=-1)
            best = probability.argsort(descending=True)[: made.config.chosen].tolist()
            total = sum(probability[i] for i in best)
            expected = sum(probability[i] / total * one_expert(made, i, inputs[row, b]) for i in best)
            for s in range(shared):
                expected = expected + one_expert(made, made.config.routed + s, inputs[row, b])
            torch.testing.assert_close(found[row, b], expected, rtol=1e-4, atol=1e-5)


def test_the_gate_gets_a_gradient_with_two_experts_and_none_with_one() -> None:
    for chosen, moves in ((2, True), (1, False)):
        made = experts(chosen=chosen)
        made(torch.ones(1, 2, INPUTS), made.gates(torch.tensor([1]))).square().sum().backward()
        gradient = made.by_task.weight.grad
        assert gradient is not None
        assert bool(gradient[1].abs().max() > 1e-6) == moves
        assert not gradient[[0, 2]].any(), "of the task alone"


def test_experts_that_were_not_chosen_get_no_gradient_and_no_work() -> None:
    made = experts()
    gates = made.gates(torch.tensor([0]))
    assert gates.layers[0][0].shape == (1, 3, INPUTS, 7), "two chosen, one shared"
    made(torch.ones(1, 2, INPUTS), gates).sum().backward()
    used = {*gates.chosen.flatten().tolist(), 4}
    for index in range(5):
        assert bool(made.weights[0].grad[index].any()) == (index in used)  # type: ignore[index]


def test_forced_experts_take_the_gates_place() -> None:
    made = experts(shared=0)
    own = made.gates(torch.tensor([0]))
    other = [i for i in range(4) if i not in own.chosen.flatten().tolist()]
    forced = made.gates(torch.tensor([0]), chosen=torch.tensor([other]))
    inputs = torch.ones(1, 1, INPUTS)
    expected = sum(
        w * one_expert(made, i, inputs[0, 0]) for w, i in zip(forced.weights[0], other, strict=True)
    )
    torch.testing.assert_close(made(inputs, forced)[0, 0], expected, rtol=1e-4, atol=1e-5)


def test_forced_experts_that_the_gate_all_but_excludes_have_weights() -> None:
    made = experts()
    with torch.no_grad():
        made.by_task.weight.fill_(-200.0)[..., 0] = 200.0
    forced = made.gates(torch.tensor([0]), chosen=torch.tensor([[1, 2]]))
    torch.testing.assert_close(forced.weights, torch.tensor([[0.5, 0.5]]))


def test_balance_loss_is_its_rate_where_experts_are_used_evenly() -> None:
    made = experts(routed=2, chosen=1, balance="loss", balance_rate=0.5)
    with torch.no_grad():
        made.by_task.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    loss = made.balance_loss(made.gates(torch.tensor([0, 1])))
    # f = (1/2, 1/2), p = (1/2, 1/2): 0.5 x 2 x (1/4 + 1/4)
    assert loss is not None and math.isclose(loss.item(), 0.5, rel_tol=1e-6)
    alone = made.balance_loss(made.gates(torch.tensor([0])))
    # f = (1, 0), p = softmax(1 / 0.5, 0)
    assert alone is not None and math.isclose(alone.item(), 1.0 / (1.0 + math.exp(-1 / 0.5)), rel_tol=1e-6)
    assert experts(balance="none").balance_loss(made.gates(torch.tensor([0]))) is None


def test_balance_by_bias_moves_the_choice_and_not_the_weights() -> None:
    made = experts(routed=2, chosen=1, balance="bias", balance_rate=0.1)
    with torch.no_grad():
        made.by_task.weight.copy_(torch.tensor([[1.0, 0.0], [0.9, 0.0], [0.1, 0.0]]))
    task = torch.arange(TASKS)
    before = made.gates(task)
    assert before.chosen.flatten().tolist() == [0, 0, 0]
    assert made.balance_loss(before) is None
    choices = []
    for _ in range(200):
        made.after_update(made.gates(task))
        choices.append(made.gates(task).chosen.float().mean().item())
    assert 0.4 < sum(choices) / len(choices) < 0.6, "both experts are used alike over updates"
    torch.testing.assert_close(made.gates(task).probabilities(), before.probabilities())


def test_noise_falls_to_nothing_and_is_for_learning_alone() -> None:
    made = experts(noise=1.0, noise_updates=10)
    task, generator = torch.arange(TASKS), torch.Generator().manual_seed(0)
    plain = made.gates(task).logits
    assert not torch.equal(made.gates(task, explore=generator).logits, plain)
    made.updates.fill_(10)
    torch.testing.assert_close(made.gates(task, explore=generator).logits, plain)


@pytest.mark.parametrize(
    ("key", "value"), [("routed", 0), ("chosen", 5), ("temperature", 0.0), ("noise", -1.0)]
)
def test_values_out_of_range_are_refused_with_the_range(key: str, value: float) -> None:
    with pytest.raises(OutOfRangeError, match=f"experts.{key}"):
        RoutedExpertsConfig(**{key: value})  # type: ignore[arg-type]
