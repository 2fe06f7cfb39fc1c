"""Rows of one backward pass are those that autograd gives one loss at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from mtrl.errors import ConfigError, UnsupportedError
from mtrl.gradients import TaskJacobian, TaskRows
from mtrl.gradients.jacobian.rows import HUGE_PAGE, row_buffer

from .networks import CASES, INPUTS, TASKS, WIDTH, Losses, mean, mlp, twins

EXACT = 1e-10
SLOW = {"operation without a rule": ("1.weight",), "broadcast": ("bias", "table", "norm.weight", "norm.bias")}
"""Case -> parameters that one backward pass does not give rows of."""


def by_autograd(net: nn.Module, losses: Losses) -> dict[str, torch.Tensor]:
    named = {name: value for name, value in net.named_parameters() if value.requires_grad}
    rows = []
    for task in range(TASKS):
        found = torch.autograd.grad(losses()[task], list(named.values()), allow_unused=True)
        rows.append(
            [torch.zeros_like(p) if g is None else g for g, p in zip(found, named.values(), strict=True)]
        )
    return {name: torch.stack([row[i] for row in rows]) for i, name in enumerate(named)}


def dense(rows: TaskRows) -> dict[str, torch.Tensor]:
    return {**rows.shared, **{name: own.dense(rows.tasks) for name, own in rows.owned.items()}}


@pytest.mark.parametrize("name", CASES)
def test_rows_are_exact(name: str) -> None:
    torch.manual_seed(0)
    net, losses = CASES[name]()
    expected = by_autograd(net, losses)
    jacobian = TaskJacobian(net)
    for _ in range(2):  # the second time by the plan of the first, into the same buffers
        rows = jacobian.rows(losses())
        found = dense(rows)
        assert set(found) == set(expected)
        for key, value in expected.items():
            assert torch.allclose(found[key], value, rtol=0, atol=EXACT), key
    assert max(value.abs().max() for value in expected.values()) > 0.01
    long = [expected[key].reshape(TASKS, -1) for key in rows.shared]
    gramian = sum(value @ value.T for value in long)
    if rows.shared:
        assert torch.allclose(rows.gramian(), gramian, rtol=1e-10, atol=EXACT)
        for scratch in (16.0, 1e-4):
            assert torch.allclose(jacobian.gramian(losses(), scratch), gramian, rtol=1e-10, atol=EXACT)
    assert jacobian.slow == SLOW.get(name, ())


def test_long_rows_lie_in_private_memory_that_may_have_huge_pages() -> None:
    buffer = row_buffer((3, 2**20), torch.empty(0))
    assert buffer.shape == (3, 2**20) and buffer.dtype == torch.float32
    assert buffer.data_ptr() % HUGE_PAGE == 0
    maps = [line.split() for line in Path("/proc/self/smaps").read_text().splitlines()]
    found = [
        n
        for n, words in enumerate(maps)
        if "-" in words[0]
        and all(part.strip("0123456789abcdef") == "" for part in words[0].split("-"))
        and int(words[0].split("-")[0], 16) <= buffer.data_ptr() < int(words[0].split("-")[1], 16)
    ]
    (line,) = found
    flags = next(words for words in maps[line:] if words[0] == "VmFlags:")
    assert maps[line][1] == "rw-p"
    assert "hg" in flags or not Path("/sys/kernel/mm/transparent_hugepage").exists()


def test_inner_products_of_long_rows_keep_the_digits_of_float32() -> None:
    rows = torch.randn(3, 200_001, generator=torch.Generator().manual_seed(0))
    found = TaskRows(3, {"weight": rows}).gramian()
    exact = rows.double() @ rows.double().T
    assert (found - exact).abs().max() < 2e-8 * exact.diagonal().min()


def test_heads_and_task_embeddings_are_owned_and_the_torso_is_shared() -> None:
    net, losses = CASES["picked heads"]()
    rows = TaskJacobian(net).rows(losses())
    assert set(rows.owned) == {"heads", "bias", "embedding.weight", "log_temperature"}
    assert set(rows.shared) == {"torso.weight", "torso.bias", "scale", "log_std"}


def test_combination_weighs_shared_rows_and_leaves_owned_ones() -> None:
    net, losses = twins(2)
    expected = by_autograd(net, losses)
    weights = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    found = TaskJacobian(net).rows(losses()).combine(weights)
    for name, value in expected.items():
        scale = torch.ones(3, dtype=torch.float64) if "head" in name else weights
        assert torch.allclose(found[name], torch.tensordot(scale, value, 1), atol=EXACT), name


@pytest.mark.parametrize("name", ["mlp", "twin critic", "picked heads", "twin calls", "merged lora"])
def test_the_loop_over_tasks_gives_the_same_rows(name: str) -> None:
    net, losses = CASES[name]()
    jacobian = TaskJacobian(net)
    expected = by_autograd(net, losses)
    pattern = jacobian.rows(losses())
    for value in pattern.shared.values():
        value.fill_(7.0)
    looped = jacobian.loop(lambda task: losses()[task], pattern)
    assert set(looped.owned) == set(pattern.owned)
    for key, value in dense(looped).items():
        assert torch.allclose(value, expected[key], atol=EXACT), key


def test_a_merged_weight_is_exact_where_one_of_its_parts_is_slow() -> None:
    torch.manual_seed(0)
    named = {
        name: nn.Parameter(torch.randn(shape).double())
        for name, shape in {"whole": (3, 3), "left": (3, 1), "right": (1, 3)}.items()
    }
    inputs = torch.randn(TASKS * 2, 3).double()

    def losses() -> torch.Tensor:
        hidden = inputs @ (named["whole"] + named["left"] @ named["right"])
        return mean(torch.maximum(hidden, named["left"].view(1, 3)).square().view(TASKS, 2, 3))

    jacobian = TaskJacobian(named)
    rows = jacobian.rows(losses())
    assert set(jacobian.slow) == set(rows.shared) == set(named)
    for task in range(TASKS):
        expected = torch.autograd.grad(losses()[task], list(named.values()))
        for name, gradient in zip(named, expected, strict=True):
            assert torch.allclose(rows.shared[name][task], gradient, rtol=0, atol=EXACT), name


def test_rows_next_to_the_data_have_no_graph() -> None:
    net, losses = CASES["convolution"]()
    rows = TaskJacobian(net).rows(losses())
    assert not any(value.requires_grad for value in rows.sums().values())


@pytest.mark.parametrize("tasks", [TASKS, 1])
def test_the_graph_goes_unless_it_is_to_be_kept(tasks: int) -> None:
    net, losses = mlp()
    jacobian = TaskJacobian(net)
    for _ in range(2):
        made = losses()[:tasks]
        jacobian.rows(made, retain_graph=True)
        jacobian.rows(made)
        with pytest.raises(RuntimeError, match="second time"):
            torch.autograd.grad(made.sum(), list(net.parameters()))


def test_batch_normalisation_is_refused_by_name() -> None:
    net = nn.Sequential(nn.Linear(WIDTH, 6), nn.BatchNorm1d(6), nn.Linear(6, 1)).double()
    with pytest.raises(UnsupportedError, match=r"1\.weight, 1\.bias: batch normalisation mixes the samples"):
        TaskJacobian(net).rows(mean(net(INPUTS.flatten(0, 1))))
    bare = nn.Sequential(nn.Linear(WIDTH, 6), nn.BatchNorm1d(6, affine=False), nn.Linear(6, 1)).double()
    with pytest.raises(UnsupportedError, match="a layer: batch normalisation mixes the samples"):
        TaskJacobian(bare).rows(mean(bare(INPUTS.flatten(0, 1))))
    bare.eval()  # with fixed statistics nothing is mixed
    rows = TaskJacobian(bare).rows(mean(bare(INPUTS.flatten(0, 1))))
    expected = by_autograd(bare, lambda: mean(bare(INPUTS.flatten(0, 1))))
    assert torch.allclose(rows.shared["0.weight"], expected["0.weight"], atol=EXACT)


def test_one_task_is_the_plain_gradient_bit_for_bit() -> None:
    net, _ = mlp()
    loss = net(INPUTS).square().mean()
    plain = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
    rows = TaskJacobian(net).rows(loss.unsqueeze(0))
    for value, expected in zip(rows.shared.values(), plain, strict=True):
        assert torch.equal(value[0], expected)


def test_a_network_that_starts_at_zero_is_planned_again_once_it_moves() -> None:
    net = nn.Sequential(nn.Linear(WIDTH, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    last = net[2]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    jacobian = TaskJacobian(net)

    def losses() -> torch.Tensor:
        return mean(net(INPUTS) - 1)

    assert bool((jacobian.rows(losses()).shared["0.weight"] == 0).all())
    nn.init.ones_(last.weight)
    expected = by_autograd(net, losses)
    for name, value in jacobian.rows(losses()).shared.items():
        assert torch.allclose(value, expected[name], atol=EXACT)


def test_bfloat16_autocast_gives_rows_in_the_parameters_type() -> None:
    net = nn.Sequential(nn.Linear(WIDTH, 32), nn.ReLU(), nn.Linear(32, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = mean(net(INPUTS.float()).float())
    rows = TaskJacobian(net).rows(losses, retain_graph=True)
    plain = torch.autograd.grad(losses.sum(), list(net.parameters()))
    for value, expected in zip(rows.shared.values(), plain, strict=True):
        assert value.dtype == torch.float32
        assert torch.allclose(value.sum(0), expected, rtol=0.05, atol=0.02)


def test_autocast_around_does_not_round_what_was_stored_in_float32() -> None:
    net = nn.Sequential(nn.Linear(WIDTH, 32), nn.ReLU(), nn.Linear(32, 1))
    losses = mean(net(INPUTS.float()))
    plain = torch.autograd.grad(losses.sum(), list(net.parameters()), retain_graph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows = TaskJacobian(net).rows(losses)
        gramian = rows.gramian()
    for value, expected in zip(rows.shared.values(), plain, strict=True):
        assert torch.allclose(value.sum(0), expected, rtol=1e-5, atol=1e-6)
    assert torch.allclose(gramian, rows.gramian(), rtol=1e-6)


def test_a_network_may_change_its_type_between_two_calls() -> None:
    net, losses = mlp()
    jacobian = TaskJacobian(net)
    exact = {name: row.clone() for name, row in jacobian.rows(losses()).shared.items()}
    net.float()
    for name, row in jacobian.rows(mean(net(INPUTS.float()))).shared.items():
        assert row.dtype == torch.float32
        assert torch.allclose(row, exact[name].float(), rtol=1e-4, atol=1e-5), name


def test_rows_in_half_precision_are_multiplied_in_float32() -> None:
    rows = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = rows.double() @ rows.double().T
    assert torch.allclose(TaskRows(3, {"weight": rows}).gramian(), exact, rtol=1e-5, atol=1e-3)


def test_losses_without_a_graph_or_of_the_wrong_shape_are_refused() -> None:
    net, losses = mlp()
    with pytest.raises(ConfigError, match=r"losses have shape \(\); expected one per task"):
        TaskJacobian(net).rows(losses().sum())
    with pytest.raises(ConfigError, match="depend on no parameter"):
        TaskJacobian(net).rows(losses().detach())
    with pytest.raises(ConfigError, match="no parameter requires a gradient"):
        TaskJacobian(nn.Linear(2, 2).requires_grad_(False))
