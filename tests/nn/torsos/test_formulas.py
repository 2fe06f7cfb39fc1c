"""Each architecture against its published formula, written as plain loops."""

import pytest
import torch

from mtrl.nn import (
    CareConfig,
    FilmConfig,
    MooreConfig,
    PaCoConfig,
    SoftModulesConfig,
    TaskNetwork,
    TorsoConfig,
    build_torso,
)
from mtrl.nn.torsos.base import Torso
from mtrl.nn.torsos.moore import orthonormalise

TASKS = torch.tensor([2, 0])
EXACT = {"rtol": 0.0, "atol": 1e-10}


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def torso(config: TorsoConfig) -> Torso:
    """Weights that are nowhere zero and tell all tasks apart."""
    found = build_torso(config, 5, 3, None, torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter += 0.3 * noise(*parameter.shape, seed=parameter.numel())
    return found


def dense(layer: torch.nn.Module, value: torch.Tensor, *at: int) -> torch.Tensor:
    return value @ layer.weight[(0, *at)] + layer.bias[(0, *at)]


def test_soft_modularization() -> None:
    parts = SoftModulesConfig(modules=3, layers=3, module_width=4, embedding=6)
    net = torso(TorsoConfig(kind="soft_modules", width=8, soft_modules=parts))
    features = noise(2, 4, 5)
    found = net(features, TASKS)
    for row, task in enumerate(TASKS.tolist()):
        for sample in range(4):
            state = dense(net.observe.linears[0], features[row, sample]).relu()
            state = dense(net.observe.linears[1], state)
            routing = dense(net.describe, torch.eye(3, dtype=torch.float64)[task]) * state
            routing = dense(net.route.linears[0], routing.relu()).relu()
            routing = dense(net.route.linears[1], routing)
            read = [state.relu()] * 3
            seen: list[torch.Tensor] = []
            for layer in range(3):
                known = routing * dense(net.condition[layer - 1], torch.cat(seen)) if layer else routing
                logits = dense(net.choose[layer], known.relu())
                out = [dense(net.modules_by_layer[layer], read[j], j) for j in range(3)]
                if layer == 2:
                    share = logits.softmax(-1)
                    expected = sum(share[j] * out[j] for j in range(3)).relu()
                    break
                share = logits.view(3, 3).softmax(-1)
                read = [sum(share[i, j] * out[j] for j in range(3)).relu() for i in range(3)]
                seen.append(share.flatten())
            torch.testing.assert_close(found[row, sample], expected, **EXACT)


def test_paco_composes_every_layer_and_the_output() -> None:
    config = TorsoConfig(kind="paco", width=6, depth=2, paco=PaCoConfig(sets=3), output_bound=0.5)
    net = TaskNetwork(config, 5, {"value": 2}, 3, None, torch.Generator().manual_seed(0)).double()
    features = noise(2, 4, 5)
    found = net(features, TASKS)["value"]
    for row, task in enumerate(TASKS.tolist()):
        mixture = net.torso.weights.weight[0, task]
        hidden = features[row]
        for layer in [*net.torso.linears, net.outputs["value"]]:
            last = layer is net.outputs["value"]
            hidden = sum(mixture[j] * dense(layer, hidden, j) for j in range(3))
            hidden = hidden if last else hidden.relu()
        torch.testing.assert_close(found[row], hidden, **EXACT)


def test_paco_starts_with_the_variance_of_one_parameter_set() -> None:
    net = TaskNetwork(
        TorsoConfig(kind="paco", width=200, depth=1),
        50,
        {"v": 1},
        200,
        None,
        torch.Generator().manual_seed(0),
    )
    mixture = net.torso.weights.weight[0]
    assert mixture.square().sum(-1).mean().item() == pytest.approx(1.0, rel=0.1)


def gram_schmidt(vectors: torch.Tensor) -> torch.Tensor:
    rows: list[torch.Tensor] = []
    for vector in vectors:
        rest = vector - sum((vector @ row) * row for row in rows)
        rows.append(rest / rest.norm())
    return torch.stack(rows)


def test_orthonormalisation_is_gram_schmidt() -> None:
    vectors = noise(7, 5, 4, 9)
    found = orthonormalise(vectors)
    for i in range(7):
        for j in range(5):
            torch.testing.assert_close(found[i, j], gram_schmidt(vectors[i, j]), **EXACT)
    torch.testing.assert_close(
        found @ found.mT, torch.eye(4, dtype=torch.float64).expand(7, 5, 4, 4), **EXACT
    )


def test_orthonormalisation_by_hand() -> None:
    found = orthonormalise(torch.tensor([[3.0, 4.0], [5.0, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8], [0.8, -0.6]], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dependent_experts_give_no_nan(dtype: torch.dtype) -> None:
    base = torch.randn(3, 1, 400, generator=torch.Generator().manual_seed(0)).to(dtype)
    vectors = torch.cat([base, base, 2 * base, torch.zeros_like(base), base + 1], dim=1).requires_grad_()
    found = orthonormalise(vectors)
    found.square().sum().backward()
    assert found.isfinite().all() and vectors.grad.isfinite().all()
    assert found.norm(dim=-1).max() < 1.01
    torch.testing.assert_close(found[:, 0].norm(dim=-1), torch.ones(3, dtype=found.dtype), atol=1e-5, rtol=0)


def test_moore_mixes_orthogonal_experts_by_task() -> None:
    net = torso(TorsoConfig(kind="moore", width=8, depth=3, moore=MooreConfig(experts=4)))
    features = noise(2, 4, 5)
    found = net(features, TASKS)
    for row, task in enumerate(TASKS.tolist()):
        for sample in range(4):
            outputs = []
            for expert in range(4):
                hidden = dense(net.experts.linears[0], features[row, sample], expert).relu()
                hidden = dense(net.experts.linears[1], hidden, expert).relu()
                outputs.append(dense(net.experts.linears[2], hidden, expert))
            basis = gram_schmidt(torch.stack(outputs))
            expected = torch.tanh(net.weights.weight[0, task] @ basis)
            torch.testing.assert_close(found[row, sample], expected, **EXACT)


def test_care_attends_over_encoders_by_task() -> None:
    parts = CareConfig(encoders=3, width=4, depth=1, temperature=0.5)
    net = torso(TorsoConfig(kind="care", width=6, depth=1, care=parts))
    features = noise(2, 4, 5)
    found = net(features, TASKS)
    for row, task in enumerate(TASKS.tolist()):
        embedding = torch.eye(3, dtype=torch.float64)[task]
        context = dense(net.context.linears[1], dense(net.context.linears[0], embedding).relu())
        logits = dense(net.attention.linears[1], dense(net.attention.linears[0], context).relu())
        attention = (logits / 0.5).softmax(-1)
        encoded = sum(
            attention[e]
            * dense(net.encoders.linears[1], dense(net.encoders.linears[0], features[row], e).relu(), e)
            for e in range(3)
        )
        joined = torch.cat([encoded, context.expand(4, -1)], dim=-1)
        torch.testing.assert_close(found[row], dense(net.stack.linears[0], joined).relu(), **EXACT)


@pytest.mark.parametrize("scalar", [True, False])
def test_film_scales_and_shifts_after_the_activation(scalar: bool) -> None:
    net = torso(TorsoConfig(kind="film", width=6, depth=2, film=FilmConfig(scalar=scalar)))
    features = noise(2, 4, 5)
    found = net(features, TASKS)
    size = 1 if scalar else 6
    for row, task in enumerate(TASKS.tolist()):
        numbers = dense(net.modulate, torch.eye(3, dtype=torch.float64)[task]).view(2, 2, size)
        hidden = features[row]
        for depth in range(2):
            hidden = (1 + numbers[depth, 0]) * dense(net.linears[depth], hidden).relu() + numbers[depth, 1]
        torch.testing.assert_close(found[row], hidden, **EXACT)


def test_the_residual_torso_adds_normalised_blocks() -> None:
    net = torso(TorsoConfig(kind="residual", width=6, depth=1, task_input=False))
    features = noise(2, 4, 5)

    def normal(layer: torch.nn.Module, value: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.layer_norm(value, (6,)) * layer.weight[0] + layer.bias[0]

    hidden = normal(net.enter_norm, dense(net.enter, features)).relu()
    inner = normal(net.expand_norm[0], dense(net.expand[0], hidden)).relu()
    expected = hidden + normal(net.contract_norm[0], dense(net.contract[0], inner))
    torch.testing.assert_close(net(features, TASKS), expected, **EXACT)


def test_paco_begins_again_for_tasks_whose_loss_explodes() -> None:
    config = TorsoConfig(kind="paco", width=4, depth=1, paco=PaCoConfig(sets=3, extreme_loss=10.0))
    net = build_torso(config, 5, 4, 2, torch.Generator().manual_seed(0))
    before = net.weights.weight.detach().clone()
    task_index = torch.tensor([3, 0, 2])
    losses = torch.tensor([10.1, 9.9, float("nan")])
    assert net.diverged(losses).tolist() == [True, False, True]
    found = net.reset_tasks(losses, task_index, torch.Generator().manual_seed(1))
    assert found.tolist() == [True, False, True]
    after = net.weights.weight.detach()
    assert torch.equal(after[:, :2], before[:, :2])
    shares = torch.rand(2, 2, generator=torch.Generator().manual_seed(1))
    shares = shares / shares.sum(-1, keepdim=True)
    for row, task in enumerate((2, 3)):
        expected = shares[row, 0] * before[:, 0] + shares[row, 1] * before[:, 1]
        torch.testing.assert_close(after[:, task], expected)


def test_paco_begins_wholly_anew_when_every_task_explodes_and_others_never_do() -> None:
    net = build_torso(TorsoConfig(kind="paco", width=4, depth=1), 5, 2)
    losses = torch.full((2,), 3001.0)
    before = net.weights.weight.detach().clone()
    assert net.reset_tasks(losses, torch.arange(2)).all()
    assert not torch.equal(net.weights.weight, before)
    assert net.weights.weight.abs().max() <= (3 / 5) ** 0.5
    assert not net.reset_tasks(torch.full((2,), 3000.0), torch.arange(2)).any()
    plain = build_torso(TorsoConfig(kind="mlp", width=4, depth=1), 5, 2)
    assert not plain.reset_tasks(losses, torch.arange(2)).any()
    assert plain.balance_loss() is None
