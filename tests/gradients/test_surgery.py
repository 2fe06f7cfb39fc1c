"""One step of gradient surgery by every method, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mtrl import registry
from mtrl.errors import ConfigError, DivergenceError, UnsupportedError
from mtrl.gradients import FastestMethod, GradientSurgery, SurgeryConfig
from mtrl.structured import build, known_keys

from .networks import INPUTS, TASKS, Losses, mean, twins


def critic() -> tuple[nn.Module, Losses]:
    return twins(2)


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return set(found) == set(expected) and all(
        torch.allclose(found[name], expected[name], atol=1e-10) for name in expected
    )


@pytest.mark.parametrize("name", registry.names("weighting"))
def test_every_method_gives_a_gradient_for_every_parameter(name: str) -> None:
    net, losses = critic()
    surgery = GradientSurgery(net, SurgeryConfig(name), TASKS)
    for _ in range(2):
        combined = surgery.step(losses())
        surgery.observe_post_step_losses(losses())
    assert set(combined.gradients) == {key for key, _ in net.named_parameters()}
    assert all(bool(torch.isfinite(value).all()) for value in combined.gradients.values())
    surgery.assign(combined.gradients)
    assert all(value.grad is not None and value.grad.shape == value.shape for value in net.parameters())


def test_the_sum_is_the_plain_gradient_bit_for_bit() -> None:
    net, losses = critic()
    found = GradientSurgery(net, SurgeryConfig("sum"), TASKS).step(losses()).gradients
    losses().sum().backward()
    for name, value in net.named_parameters():
        assert value.grad is not None and torch.equal(found[name], value.grad)


@pytest.mark.parametrize("name", registry.names("weighting"))
def test_one_task_is_the_plain_gradient_and_says_so(name: str) -> None:
    net = nn.Linear(5, 1).double()
    surgery = GradientSurgery(net, SurgeryConfig(name), 1)
    assert surgery.note == ("" if name == "sum" else surgery.note) and ("one task" in surgery.note) == (
        name != "sum"
    )
    found = surgery.step(net(INPUTS).square().mean().unsqueeze(0)).gradients
    net(INPUTS).square().mean().backward()
    for key, value in net.named_parameters():
        assert value.grad is not None and torch.equal(found[key], value.grad)


@pytest.mark.parametrize("name", ["mgda", "upgrad", "cagrad"])
@pytest.mark.parametrize("weigh_owned", [False, True])
def test_streamed_and_kept_rows_agree(name: str, weigh_owned: bool) -> None:
    net, losses = critic()
    kept = GradientSurgery(net, SurgeryConfig(name, weigh_owned=weigh_owned), TASKS)
    streamed = GradientSurgery(net, SurgeryConfig(name, weigh_owned=weigh_owned, memory_mb=1e-6), TASKS)
    assert streamed.streamed and not kept.streamed
    first, second = kept.step(losses()), streamed.step(losses())
    assert torch.allclose(first.weights, second.weights, atol=1e-8)
    assert close(first.gradients, second.gradients)
    assert first.metrics == pytest.approx(second.metrics, abs=1e-8)


def test_row_methods_agree_and_the_measured_choice_is_kept() -> None:
    net, losses = critic()
    surgery = GradientSurgery(net, SurgeryConfig("mgda"), TASKS)
    plain = GradientSurgery(net, SurgeryConfig("mgda", row_method="backward"), TASKS).step(losses())
    while not surgery.choice.chosen:
        assert close(surgery.step(losses, lambda task: losses()[task]).gradients, plain.gradients)
    assert len(surgery.choice.seconds["loop"]) == len(surgery.choice.seconds["backward"]) == 6
    resumed = GradientSurgery(net, SurgeryConfig("mgda"), TASKS)
    resumed.load_state_dict(surgery.state_dict())
    assert resumed.choice.chosen == surgery.choice.chosen


def test_the_choice_is_the_method_of_the_least_median() -> None:
    choice = FastestMethod(("backward", "loop"), rounds=3)
    # the first of each warms up and does not count
    for seconds in ((9.0, 9.0), (1.0, 2.0), (5.0, 2.0), (1.0, 2.0)):
        assert not choice.chosen
        for _ in range(2):
            method = choice.next()
            choice.record(method, seconds[0] if method == "backward" else seconds[1])
    assert choice.chosen == choice.next() == "backward"
    with pytest.raises(ConfigError, match="expected one of backward, loop"):
        FastestMethod(("backward", "loop"), chosen="both")


def test_weights_are_held_between_solutions_and_smoothed() -> None:
    net, losses = critic()
    surgery = GradientSurgery(net, SurgeryConfig("mgda", every=3, smoothing=0.9), TASKS)
    weights = []
    for _ in range(4):
        weights.append(surgery.step(losses()).weights)
        with torch.no_grad():
            for value in net.parameters():
                value.mul_(1.3)
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[1], weights[2])
    fresh = GradientSurgery(net, SurgeryConfig("mgda"), TASKS)
    with torch.no_grad():
        for value in net.parameters():
            value.div_(1.3)
    assert torch.allclose(weights[3], 0.9 * weights[2] + 0.1 * fresh.step(losses()).weights)


def test_held_weights_leave_heads_alone_as_solved_ones_do() -> None:
    net, losses = critic()
    surgery = GradientSurgery(net, SurgeryConfig("mgda", every=2), TASKS)
    assert close(surgery.step(losses()).gradients, surgery.step(losses()).gradients)


def test_metrics_and_cosines() -> None:
    direction = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    rows = torch.tensor([[1.0, 0.0], [-3.0, 4.0], [0.0, 2.0]], dtype=torch.float64)
    surgery = GradientSurgery({"direction": direction}, SurgeryConfig("pcgrad"), 3)
    metrics = surgery.step((rows * direction).sum(1)).metrics
    # cosines: -3/5, 0, 4/5
    assert metrics["cosine_min"] == pytest.approx(-0.6)
    assert metrics["cosine_mean"] == pytest.approx(0.2 / 3)
    assert metrics["conflict_share"] == pytest.approx(1 / 3)
    assert surgery.cosines is not None and surgery.cosines[1, 2].item() == pytest.approx(0.8)


def test_gradient_drop_keeps_one_sign_per_coordinate() -> None:
    values = nn.Parameter(torch.zeros(1000, dtype=torch.float64))
    rows = torch.stack([torch.full((1000,), 3.0), torch.full((1000,), -1.0)]).double()
    surgery = GradientSurgery({"values": values}, SurgeryConfig("graddrop"), 2)
    found = surgery.step((rows * values).sum(1)).gradients["values"]
    # P = (1 + 2 / 4) / 2: three in four keep the positive part
    assert set(found.tolist()) == {3.0, -1.0}
    assert (found == 3.0).double().mean().item() == pytest.approx(0.75, abs=0.05)


def test_sparse_updates_train_a_fixed_share() -> None:
    net, losses = critic()
    surgery = GradientSurgery(net, SurgeryConfig("pcgrad", trained_share=0.3), TASKS)
    first = surgery.step(losses()).gradients["weight"] != 0
    second = surgery.step(losses()).gradients["weight"] != 0
    assert torch.equal(first, second)
    assert first.double().mean().item() == pytest.approx(0.3, abs=0.15)


def test_losses_after_a_step_count_only_where_it_found_weights() -> None:
    weights = nn.Parameter(torch.ones(2))
    surgery = GradientSurgery({"weights": weights}, SurgeryConfig("famo", every=2), 2)
    needed = []
    # nothing falls: neither the first losses, nor those of the step between, nor what is no number
    for values in ([1.0, 1.0], [5.0, 1.0], [2.0, 1.0]):
        surgery.step((weights * torch.eye(2)).sum(1) * torch.tensor(values))
        needed.append(surgery.needs_post_step)
        surgery.observe_post_step_losses(torch.tensor(values))
    surgery.observe_post_step_losses(torch.tensor([torch.inf, 1.0]))
    assert needed == [True, False, True]
    assert surgery.weighting.state_dict()["logits"].tolist() == [0.0, 0.0]


def test_ratio_methods_are_refused_on_losses_that_may_be_negative() -> None:
    net, losses = critic()
    for name in ("famo", "uncertainty", "dwa", "gradnorm"):
        with pytest.raises(UnsupportedError, match=f"'{name}' on the actor's loss: it|a negative loss"):
            GradientSurgery(net, SurgeryConfig(name), TASKS, signed="the actor's loss")
        with pytest.raises(UnsupportedError, match=r"met the loss -\S+ of task"):
            GradientSurgery(net, SurgeryConfig(name), TASKS).step(losses() - 1e3)


def test_what_is_not_finite_names_the_task() -> None:
    net, losses = critic()
    surgery = GradientSurgery(net, SurgeryConfig("pcgrad"), TASKS)
    bad = losses() * torch.tensor([1.0, float("nan"), 1.0])
    with pytest.raises(DivergenceError, match="a task loss diverged at update 0: task 1: nan"):
        surgery.step(bad)
    scale = nn.Parameter(torch.ones(1, dtype=torch.float64))
    roots = (INPUTS.flatten(1)[:, :1] * 0 + scale - 1).sqrt()
    surgery = GradientSurgery({"scale": scale}, SurgeryConfig("pcgrad"), TASKS)
    with pytest.raises(DivergenceError, match="gradient of task 0"):
        surgery.step(mean(roots.sqrt()) + roots.sum(1))


def test_configs_that_do_not_fit_are_refused() -> None:
    net, losses = critic()
    with pytest.raises(UnsupportedError, match="needs all rows"):
        GradientSurgery(net, SurgeryConfig("graddrop", memory_mb=1e-6), TASKS)
    with pytest.raises(ConfigError, match=r"expected \(5,\), one per task"):
        GradientSurgery(net, SurgeryConfig("mgda"), 5).step(losses())
    for wrong in (
        {"every": 0},
        {"smoothing": 1.0},
        {"trained_share": 0.0},
        {"memory_mb": 0.0},
        {"row_method": "x"},
    ):
        with pytest.raises(ConfigError):
            SurgeryConfig(**wrong)


def test_the_key_and_value_of_older_files_are_read() -> None:
    older = build(SurgeryConfig, {"method": "mgda", "row_method": "auto", "way": "loop"}, "agent.gradients")
    assert older == SurgeryConfig("mgda", row_method="loop")
    assert build(SurgeryConfig, {"way": "measure"}) == SurgeryConfig()
    assert "agent.gradients.way" in known_keys(SurgeryConfig, "agent.gradients")
    with pytest.raises(
        ConfigError, match=r"gradients\.row_method is 'auto', 'backward' or 'loop'; got 'fast'"
    ):
        build(SurgeryConfig, {"way": "fast"})
