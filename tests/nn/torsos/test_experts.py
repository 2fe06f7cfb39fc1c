"""Routing, balancing and the experts themselves."""

from dataclasses import replace

import pytest
import torch

from mtrl.errors import ConfigError
from mtrl.nn import ExpertsConfig, Torso, TorsoConfig, build_torso
from mtrl.nn.expert_diagnostics import expert_load, load_variation
from mtrl.nn.torsos.router import Router

TASKS = torch.tensor([2, 0])
EXACT = {"rtol": 0.0, "atol": 1e-10}


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def torso(parts: ExpertsConfig, depth: int = 1, members: int | None = None) -> Torso:
    config = TorsoConfig(kind="experts", width=6, depth=depth, experts=parts)
    found = build_torso(config, 5, 3, members, torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter += 0.5 * noise(*parameter.shape, seed=parameter.numel())
    return found


def dense(layer: torch.nn.Module, value: torch.Tensor, *at: int) -> torch.Tensor:
    out = value @ layer.weight[(0, *at)]
    return out if layer.bias is None else out + layer.bias[(0, *at)]


def normal(layer: torch.nn.Module, value: torch.Tensor, *at: int) -> torch.Tensor:
    return torch.nn.functional.layer_norm(value, (6,)) * layer.weight[(0, *at)] + layer.bias[(0, *at)]


@pytest.mark.parametrize("dispatch", ["dense", "packed"])
@pytest.mark.parametrize("gate", ["task", "state", "both"])
def test_a_block_is_the_loop_over_samples_and_experts(gate: str, dispatch: str) -> None:
    parts = ExpertsConfig(
        routed=4, shared=2, chosen=2, gate=gate, hidden=7, feature_gate=2, self_gate=True, dispatch=dispatch
    )
    net = torso(parts)
    block = net.blocks[0]
    features = noise(2, 9, 5)
    found = net(features, TASKS)

    def expert(bank: torch.nn.Module, value: torch.Tensor, index: int) -> torch.Tensor:
        value = value * 2 * torch.sigmoid(dense(bank.open, dense(bank.reduce, value, index), index))
        value = dense(bank.stack.linears[0], value, index).relu()
        return torch.nn.functional.silu(normal(bank.norm, dense(bank.stack.linears[1], value, index), index))

    for row, task in enumerate(TASKS.tolist()):
        embedding = torch.eye(3, dtype=torch.float64)[task]
        for sample in range(9):
            entered = torch.cat([features[row, sample], embedding])
            hidden = normal(net.enter_norm, dense(net.enter, entered)).relu()
            inner = normal(block.norm, hidden)
            logits = torch.zeros(4, dtype=torch.float64)
            if gate != "state":
                logits = logits + dense(block.router.by_task, embedding)
            if gate != "task":
                logits = logits + dense(block.router.by_state, inner)
            scores = logits.softmax(-1)
            best = scores.argsort(descending=True)[:2].tolist()
            expected = hidden + sum(
                scores[e] / scores[best].sum() * expert(block.routed, inner, e) for e in best
            )
            open_by = 2 * torch.sigmoid(dense(block.self_gate, inner))
            expected = expected + sum(open_by[s] * expert(block.shared, inner, s) for s in range(2))
            torch.testing.assert_close(found[row, sample], expected, **EXACT)


def test_packed_dispatch_has_the_gradients_of_the_dense_one() -> None:
    features = noise(2, 2, 40, 5)
    gradients = []
    for dispatch in ("dense", "packed"):
        net = torso(ExpertsConfig(routed=5, chosen=2, gate="state", dispatch=dispatch), depth=2, members=2)
        net(features, TASKS).square().sum().backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    for dense_gradient, packed_gradient in zip(*gradients, strict=True):
        torch.testing.assert_close(dense_gradient, packed_gradient)


@pytest.mark.parametrize("parts", [ExpertsConfig(chosen=1, renormalise=False), ExpertsConfig(chosen=2)])
def test_choosing_few_experts_still_trains_the_router(parts: ExpertsConfig) -> None:
    net = torso(parts)
    net(noise(2, 50, 5), TASKS).square().sum().backward()
    router = net.blocks[0].router
    assert router.by_task.weight.grad.abs().max() > 1e-6
    assert router.by_state.weight.grad.abs().max() > 1e-6


def test_the_selection_bias_changes_choices_but_no_weights_and_no_gradients() -> None:
    net = torso(ExpertsConfig(routed=4, chosen=2))
    features = noise(2, 30, 5)

    def gradients() -> list[torch.Tensor]:
        net.zero_grad()
        out = net(features, TASKS)
        out.square().sum().backward()
        return [out.detach(), *(parameter.grad.clone() for parameter in net.parameters())]

    plain = gradients()
    router = net.blocks[0].router
    router.bias.fill_(0.7)  # the same for all: nobody's choice changes
    assert all(torch.equal(a, b) for a, b in zip(plain, gradients(), strict=True))
    router.bias[0, 3] = 100.0
    with net.record() as records:
        net(features, TASKS)
    gates = dict(records)["gates"]
    assert (gates[..., 3] > 0).all()


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_bias_evens_out_the_loads_of_a_frozen_random_router(decay: float) -> None:
    parts = ExpertsConfig(routed=8, chosen=2, gate="state", balance=3e-3, load_decay=decay)
    router = Router(parts, (1,), 6, 3, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(router.by_state.weight, generator=torch.Generator().manual_seed(1))
    source = torch.Generator().manual_seed(2)
    embedding = torch.zeros(1, 2, 1, 3)

    def variation() -> float:
        fresh = torch.randn(1, 2, 4000, 6, generator=source)
        return load_variation(expert_load(router(fresh, embedding).gates())).item()

    assert variation() > 0.15
    router.update_balance()
    for _ in range(250):
        router(torch.randn(1, 2, 256, 6, generator=source), embedding)
        router.update_balance()
    assert variation() < 0.1


def test_one_balance_step_by_hand() -> None:
    parts = ExpertsConfig(routed=4, chosen=2, gate="state", balance=0.5, load_decay=0.9)
    router = Router(parts, (1,), 6, 3)
    router.pending.copy_(torch.tensor([[6.0, 2.0, 2.0, 0.0]]))
    router.update_balance()
    # loads .6 .2 .2 0 averaged into the even .25
    torch.testing.assert_close(router.load, torch.tensor([[0.285, 0.245, 0.245, 0.225]]))
    torch.testing.assert_close(router.bias, torch.tensor([[-0.5, 0.5, 0.5, 0.5]]))
    assert (router.pending == 0).all()
    router.update_balance()
    torch.testing.assert_close(router.bias, torch.tensor([[-0.5, 0.5, 0.5, 0.5]]))


def test_only_training_forwards_count_for_the_balance() -> None:
    net = torso(ExpertsConfig(routed=4, chosen=2))
    pending = net.blocks[0].router.pending
    with torch.no_grad():
        net(noise(2, 30, 5), TASKS)
    net.eval()
    net(noise(2, 30, 5), TASKS)
    assert pending.sum() == 0
    net.train()
    net(noise(2, 30, 5), TASKS)
    assert pending.sum() == 2 * 30 * 2
    by_task = torso(ExpertsConfig(routed=4, chosen=2, gate="task"))
    by_task(noise(2, 30, 5), TASKS)
    by_task.update_balance()
    assert (by_task.blocks[0].router.bias == 0).all()


def test_home_gates_start_open() -> None:
    plain = build_torso(TorsoConfig(kind="experts", width=6, depth=1, experts=ExpertsConfig(routed=4)), 5, 3)
    gated = build_torso(
        TorsoConfig(
            kind="experts", width=6, depth=1, experts=ExpertsConfig(routed=4, feature_gate=2, self_gate=True)
        ),
        5,
        3,
    )
    gated.load_state_dict(plain.state_dict(), strict=False)
    features = noise(2, 4, 5).float()
    torch.testing.assert_close(plain(features, TASKS), gated(features, TASKS))


def test_a_normalised_expert_cannot_be_shifted_into_silence() -> None:
    """A common shift of all units, which would kill every ReLU, is undone before Swish."""
    net = torso(ExpertsConfig(routed=2, chosen=2, shared=0))
    features = noise(2, 50, 5)
    before = net(features, TASKS)
    with torch.no_grad():
        net.blocks[0].routed.stack.linears[1].bias -= 100.0
    torch.testing.assert_close(net(features, TASKS), before)


GROUPED = ExpertsConfig(routed=5, chosen=2, groups=(0, 1, 0), common=1, balance=0.5)


def test_a_task_chooses_among_the_experts_of_its_group_and_the_common_ones() -> None:
    net = torso(GROUPED)
    everything = torch.arange(3)
    with net.record() as records:
        net(noise(3, 400, 5), everything)
    chosen = (dict(records)["gates"][0] > 0).any(dim=1)
    assert chosen.tolist() == [
        [True, True, True, False, False],
        [True, False, False, True, True],
        [True, True, True, False, False],
    ]
    torch.testing.assert_close(dict(records)["gates"].sum(-1), torch.ones(1, 3, 400, dtype=torch.float64))
    dense, packed_net = (torso(replace(GROUPED, dispatch=name)) for name in ("dense", "packed"))
    features = noise(3, 20, 5)
    torch.testing.assert_close(dense(features, everything), packed_net(features, everything), **EXACT)


def test_loads_are_evened_out_within_a_group() -> None:
    router = torso(replace(GROUPED, gate="state", load_decay=0.0)).blocks[0].router
    router.pending.copy_(torch.tensor([[4.0, 3.0, 1.0, 1.0, 1.0]]))
    router.update_balance()
    assert router.bias.tolist() == [[0.0, -0.5, 0.5, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": (0, 2)}, "without gaps"),
        ({"groups": (0, 1), "routed": 5}, "2, 1 left over"),
        ({"groups": (0, 1, 2, 3), "chosen": 3}, "at least chosen=3"),
        ({"switch": -1.0}, "switch"),
        ({"common": 9}, "common=9"),
    ],
)
def test_groups_that_cannot_be_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ExpertsConfig(**settings)


def test_groups_are_of_all_tasks() -> None:
    with pytest.raises(ConfigError, match="3 of them; got 2 numbers"):
        torso(ExpertsConfig(groups=(0, 1)))


def test_the_auxiliary_loss_of_switch() -> None:
    """a E sum f_i p_i, from the recorded choices and the scores by hand, apart from the output's gradient."""
    parts = ExpertsConfig(routed=4, chosen=2, gate="state", switch=0.01)
    net, plain = torso(parts, depth=2), torso(replace(parts, switch=0.0), depth=2)
    features = noise(2, 30, 5)
    out = net(features, TASKS)
    found = net.balance_loss()
    assert found is not None and net.balance_loss() is None
    expected = torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        told = net.embedding(TASKS).expand(1, 2, 30, -1)
        hidden = net.activate(net.enter_norm(net.enter(torch.cat([features[None], told], dim=-1))))
        for block in net.blocks:
            scores = block.router.by_state(block.norm(hidden)).softmax(-1)[0].flatten(0, 1)
            shares = scores.topk(2).indices.flatten().bincount(minlength=4) / 120
            expected = expected + 0.01 * 4 * (shares * scores.mean(0)).sum()
            hidden = block(hidden, TASKS, net.embedding(TASKS), net)
    torch.testing.assert_close(found, expected, **EXACT)
    found.backward(retain_graph=True)
    assert net.blocks[1].router.by_state.weight.grad.abs().max() > 0
    net.zero_grad()
    out.square().sum().backward()
    plain(features, TASKS).square().sum().backward()
    for mine, without in zip(net.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, without.grad)
    net.eval()
    net(features, TASKS)
    assert net.balance_loss() is None and plain.balance_loss() is None


def test_the_auxiliary_loss_is_least_for_even_loads() -> None:
    """Every expert chosen equally often with equal scores: the loss is a."""
    router = Router(
        ExpertsConfig(routed=4, chosen=1, renormalise=False, gate="state", switch=0.3), (1,), 4, 3
    )
    with torch.no_grad():
        router.by_state.weight.copy_(1e3 * torch.eye(4)[None])
    router(torch.eye(4).reshape(1, 2, 2, 4), torch.zeros(1, 2, 1, 3))
    torch.testing.assert_close(router.auxiliary, torch.tensor(0.3))
    router(torch.eye(4)[:1].expand(4, 4).reshape(1, 2, 2, 4), torch.zeros(1, 2, 1, 3))
    torch.testing.assert_close(router.auxiliary, torch.tensor(1.2))
