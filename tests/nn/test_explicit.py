"""The two passes that are written out, against autograd on the same network."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mtrl.nn import ExplicitNetwork, FlatParameters, TaskEmbeddingConfig, TaskNetwork, TorsoConfig

TASKS, SAMPLES, FEATURES, SIZE = 3, 5, 4, 2
PLAIN = TorsoConfig(kind="mlp", width=8, depth=2, layer_norm=False, output="task")


def network_of(config: TorsoConfig, members: int | None) -> TaskNetwork:
    torch.manual_seed(0)
    made = TaskNetwork(config, FEATURES, {"value": SIZE}, TASKS, members=members).double()
    with torch.no_grad():
        for parameter in made.parameters():
            # biases and outputs begin at or near zero, where half of the formulas would say nothing
            parameter.normal_()
    return made


@pytest.mark.parametrize("members", [None, 2])
@pytest.mark.parametrize("output", ["task", "shared"])
@pytest.mark.parametrize("changes", [{}, {"layer_norm": True, "norm_affine": False}, {"depth": 1}])
@pytest.mark.parametrize("told", [True, False])
def test_it_is_what_autograd_finds(
    members: int | None, output: str, changes: dict[str, object], told: bool
) -> None:
    config = dataclasses.replace(PLAIN, output=output, task_input=told, **changes)  # type: ignore[arg-type]
    network = network_of(config, members)
    assert ExplicitNetwork.serves(network)
    weights = FlatParameters(network)
    explicit = ExplicitNetwork(network, weights, weights.gradient)
    task = torch.arange(TASKS)
    for samples in (SAMPLES, SAMPLES + 2):
        features = torch.randn(TASKS, samples, FEATURES, dtype=torch.float64, requires_grad=True)
        expected = network.read("value", network.torso(features, task), task)
        explicit.inputs(samples)[..., :FEATURES] = features.detach()
        found = explicit.forward()["value"]
        torch.testing.assert_close(found if members else found[0], expected.detach())
        pull = torch.randn_like(expected)
        by_autograd = torch.autograd.grad(expected, [features, *network.parameters()], pull)
        outside = explicit.backward_inputs({"value": pull.reshape(found.shape)}, slice(1, 3))
        torch.testing.assert_close(outside.sum(0).view(TASKS, samples, 2), by_autograd[0][..., 1:3])
        explicit.backward({"value": pull.reshape(found.shape)})
        found = dict(zip(weights.named, weights.split(weights.gradient), strict=True))
        for (name, _), gradient in zip(network.named_parameters(), by_autograd[1:], strict=True):
            torch.testing.assert_close(found[name], gradient, msg=name)


def test_inputs_alone_leave_the_weights_gradient_as_it_is() -> None:
    network = network_of(PLAIN, 2)
    weights = FlatParameters(network)
    explicit = ExplicitNetwork(network, weights, weights.gradient)
    explicit.inputs(SAMPLES)[..., :FEATURES] = 1.0
    explicit.backward_inputs({"value": torch.ones_like(explicit.forward()["value"])}, slice(0, 1))
    assert not weights.gradient.any()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_network_without_a_way_back_follows_the_weights_too(depth: int) -> None:
    network = network_of(dataclasses.replace(PLAIN, depth=depth), 2)
    weights = FlatParameters(network)
    explicit, whole = ExplicitNetwork(network, weights), ExplicitNetwork(network, weights, weights.gradient)
    for made in (explicit, whole):
        made.inputs(SAMPLES)[..., :FEATURES] = 1.0
    before = explicit.forward()["value"].clone()
    assert torch.equal(before, whole.forward()["value"])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2.0)
    assert not torch.allclose(explicit.forward()["value"], before)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "residual"},
        {"activation": "silu"},
        {"layer_norm": True, "norm_affine": True},
        {"embedding": TaskEmbeddingConfig("learned", 4)},
    ],
)
def test_other_networks_are_left_to_autograd(changes: dict[str, object]) -> None:
    assert not ExplicitNetwork.serves(network_of(dataclasses.replace(PLAIN, **changes), 2))  # type: ignore[arg-type]


@pytest.mark.parametrize("members", [None, 2])
@pytest.mark.parametrize("output", ["task", "shared"])
@pytest.mark.parametrize("layer_norm", [True, False])
def test_outputs_may_share_the_tasks_out(members: int | None, output: str, layer_norm: bool) -> None:
    owners = {"left": [0, 2], "right": [1]}
    torch.manual_seed(0)
    config = dataclasses.replace(PLAIN, output=output, layer_norm=layer_norm, norm_affine=False)  # type: ignore[arg-type]
    sizes = {"left": 2, "right": 5}
    network = TaskNetwork(config, FEATURES, sizes, TASKS, members=members, served=owners).double()
    weights = FlatParameters(network)
    with torch.no_grad():
        weights.vector.normal_()
    explicit = ExplicitNetwork(network, weights, weights.gradient)
    features = torch.randn(TASKS, SAMPLES, FEATURES, dtype=torch.float64, requires_grad=True)
    hidden = network.torso(features, torch.arange(TASKS))
    explicit.inputs(SAMPLES)[..., :FEATURES] = features.detach()
    found = explicit.forward()
    pulls, expected = {}, {}
    for name, tasks in owners.items():
        rows = torch.tensor(tasks)
        expected[name] = network.read(name, hidden.index_select(-3, rows), rows)
        torch.testing.assert_close(found[name].view_as(expected[name]), expected[name].detach())
        pulls[name] = torch.randn_like(found[name])
    for names in (["left", "right"], ["right"], ["left"]):
        total = sum((expected[name] * pulls[name].view_as(expected[name])).sum() for name in names)
        (outside,) = torch.autograd.grad(total, features, retain_graph=True)
        told = explicit.backward_inputs({name: pulls[name] for name in names}, slice(0, FEATURES))
        torch.testing.assert_close(told.sum(0).view(TASKS, SAMPLES, FEATURES), outside)
    whole = sum((expected[name] * pulls[name].view_as(expected[name])).sum() for name in owners)
    by_autograd = torch.autograd.grad(whole, list(network.parameters()))
    explicit.backward(pulls)
    parts = dict(zip(weights.named, weights.split(weights.gradient), strict=True))
    for (name, _), gradient in zip(network.named_parameters(), by_autograd, strict=True):
        torch.testing.assert_close(parts[name], gradient, msg=name)


def test_a_task_with_two_outputs_or_none_is_left_to_autograd() -> None:
    sizes = {"continuous": 2}
    both = TaskNetwork(PLAIN, FEATURES, sizes | {"discrete": 3}, TASKS)
    assert not ExplicitNetwork.serves(both)
    some = TaskNetwork(PLAIN, FEATURES, sizes, TASKS, served={"continuous": [0, 2]})
    assert not ExplicitNetwork.serves(some)
