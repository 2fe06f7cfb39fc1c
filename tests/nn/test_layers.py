"""Layers with leading axes against one plain product per index, and the per-task gradients they promise."""

import math

import pytest
import torch

from mtrl.nn import BatchedLinear, ComposedLinear, LayerNorm, Stack, TaskLinear, TaskTable

TASKS = torch.tensor([3, 0, 2])
EXACT = {"rtol": 0.0, "atol": 1e-10}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator(seed))


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """In float64, with biases that are not zero."""
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(noise(*parameter.shape, seed=parameter.numel()))
    return module


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_a_batched_layer_is_one_plain_layer_per_index(leading: tuple[int, ...]) -> None:
    layer = shaken(BatchedLinear(leading, 5, 4))
    inputs = noise(*leading, 3, 6, 5)
    out = layer(inputs)
    assert out.shape == (*leading, 3, 6, 4)
    for index in (
        torch.cartesian_prod(*map(torch.arange, leading)).reshape(-1, len(leading)) if leading else [()]
    ):
        at = tuple(int(i) for i in index)
        naive = inputs[at] @ layer.weight[at] + layer.bias[at]
        torch.testing.assert_close(out[at], naive, **EXACT)


def test_a_task_layer_uses_the_weights_of_each_rows_task() -> None:
    layer = shaken(TaskLinear((2, 4), 5, 3))
    inputs = noise(2, 3, 6, 5)
    out = layer(inputs, TASKS)
    for member in range(2):
        for row, task in enumerate(TASKS.tolist()):
            naive = inputs[member, row] @ layer.weight[member, task] + layer.bias[member, task]
            torch.testing.assert_close(out[member, row], naive, **EXACT)


def test_a_task_layer_leaves_absent_tasks_without_gradient() -> None:
    layer = shaken(TaskLinear((2, 4), 5, 3))
    layer(noise(2, 3, 6, 5), TASKS).square().sum().backward()
    touched = layer.weight.grad.flatten(2).abs().sum(-1) > 0
    assert touched.tolist() == [[True, False, True, True]] * 2


def test_a_composed_layer_mixes_outputs_of_its_sets() -> None:
    layer = shaken(ComposedLinear((2, 3), 5, 4))
    inputs, mixture = noise(2, 3, 6, 5), noise(2, 3, 1, 3, seed=9)
    out = layer(inputs, mixture)
    for member in range(2):
        for task in range(3):
            naive = sum(
                mixture[member, task, 0, j]
                * (inputs[member, task] @ layer.weight[member, j] + layer.bias[member, j])
                for j in range(3)
            )
            torch.testing.assert_close(out[member, task], naive, **EXACT)


def test_documented_per_task_gradients_of_a_composed_layer() -> None:
    layer = shaken(ComposedLinear((1, 3), 5, 4))
    inputs, mixture = noise(1, 2, 6, 5), noise(1, 2, 1, 3, seed=9).requires_grad_()
    out = layer(inputs, mixture)
    slope = noise(1, 2, 6, 4, seed=4)
    for task in range(2):
        own = torch.zeros_like(slope)
        own[:, task] = slope[:, task]
        weight, mixed = torch.autograd.grad(out, [layer.weight, mixture], own, retain_graph=True)
        product = inputs[0, task].T @ slope[0, task]
        for j in range(3):
            torch.testing.assert_close(weight[0, j], mixture[0, task, 0, j].detach() * product, **EXACT)
            expected = (layer.weight[0, j] * product).sum() + (layer.bias[0, j] * slope[0, task].sum(0)).sum()
            torch.testing.assert_close(mixed[0, task, 0, j], expected, **EXACT)


def test_layer_norm_by_hand() -> None:
    layer = LayerNorm((2,), 2, eps=0.0)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1.0], [2.0, 3.0]]))
        layer.bias.copy_(torch.tensor([[0.0, 0.0], [0.5, 0.0]]))
    # (1, 5) has mean 3 and deviation 2
    out = layer(torch.tensor([1.0, 5.0]).expand(2, 1, 1, 2))
    torch.testing.assert_close(out[:, 0, 0], torch.tensor([[-1.0, 1.0], [-1.5, 3.0]]))
    assert list(LayerNorm((2,), 2, affine=False).parameters()) == []


def test_a_table_gives_each_task_its_row() -> None:
    table = TaskTable((2,), 4, 3, bound=1.0, generator=generator())
    rows = table(TASKS)
    assert rows.shape == (2, 3, 1, 3)
    torch.testing.assert_close(rows[:, :, 0], table.weight[:, TASKS])


def test_weights_start_he_uniform_with_zero_biases_or_within_the_bound() -> None:
    layer = BatchedLinear((2,), 24, 500, generator=generator())
    bound = math.sqrt(6.0 / 24)
    assert layer.weight.abs().max() <= bound and layer.weight.abs().max() > 0.99 * bound
    assert layer.weight.var().item() == pytest.approx(bound**2 / 3, rel=0.03)
    assert (layer.bias == 0).all()
    head = TaskLinear((1, 3), 24, 500, bound=1e-3, generator=generator())
    assert 0.99e-3 < head.weight.abs().max() <= 1e-3


def test_the_same_generator_state_gives_the_same_weights() -> None:
    first, again, other = (BatchedLinear((2,), 3, 4, generator=generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(first.weight, again.weight) and not torch.equal(first.weight, other.weight)


def test_a_stack_is_linear_norm_activation_and_may_end_linear() -> None:
    stack = shaken(Stack((1,), 3, [4, 2], activation="silu", norm=True, activate_last=False))
    inputs = noise(1, 2, 5, 3)
    first, last = stack.linears
    normal = torch.nn.functional.layer_norm(inputs @ first.weight + first.bias, (4,))
    hidden = torch.nn.functional.silu(normal * stack.norms[0].weight + stack.norms[0].bias)
    torch.testing.assert_close(stack(inputs), hidden @ last.weight + last.bias, **EXACT)
    assert len(stack.norms) == 1
