"""What holds for every torso: shapes, ensembles, separation of tasks, determinism, half precision."""

import numpy as np
import onnxruntime
import pytest
import torch

from mtrl import registry
from mtrl.deployment.artefact.export import chunk_graph
from mtrl.errors import MtrlError, SpaceError, UnknownNameError
from mtrl.nn import ExpertsConfig, TaskEmbeddingConfig, TaskNetwork, TorsoConfig, torso_diagnostics

TASKS = torch.tensor([2, 0, 3])
LEARNED = TaskEmbeddingConfig(kind="learned", size=6)
EXACT = {"rtol": 0.0, "atol": 1e-10}

CONFIGS = {
    **{kind: TorsoConfig(kind=kind, width=16, depth=2, output_bound=0.5) for kind in registry.names("torso")},
    "learned": TorsoConfig(
        kind="mlp", width=16, depth=2, layer_norm=True, embedding=LEARNED, output_bound=0.5
    ),
    "packed": TorsoConfig(
        kind="experts", width=16, depth=2, experts=ExpertsConfig(dispatch="packed"), output_bound=0.5
    ),
    "home": TorsoConfig(
        kind="experts",
        width=16,
        depth=1,
        output_bound=0.5,
        experts=ExpertsConfig(
            gate="state", feature_gate=3, self_gate=True, shared=2, chosen=1, renormalise=False
        ),
    ),
    "grouped": TorsoConfig(
        kind="experts",
        width=16,
        depth=1,
        output_bound=0.5,
        experts=ExpertsConfig(routed=5, common=1, groups=(0, 1, 1, 0)),
    ),
}


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> TorsoConfig:
    return CONFIGS[request.param]


def build(config: TorsoConfig, members: int | None = None, seed: int = 0) -> TaskNetwork:
    return TaskNetwork(config, 7, {"a": 5, "b": 2}, 4, members, torch.Generator().manual_seed(seed)).double()


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_shapes(config: TorsoConfig) -> None:
    features = noise(3, 6, 7)
    alone, twins = build(config), build(config, 2)
    assert alone.torso(features, TASKS).shape == (3, 6, alone.torso.width)
    found = twins(features, TASKS)
    assert found["a"].shape == (2, 3, 6, 5) and found["b"].shape == (2, 3, 6, 2)
    assert twins.torso(noise(2, 3, 6, 7), TASKS).shape == (2, 3, 6, twins.torso.width)


def test_an_ensemble_is_its_members_one_by_one(config: TorsoConfig) -> None:
    twins = build(config, 2)
    features = noise(2, 3, 6, 7)
    together = twins(features, TASKS)["a"]
    for member in range(2):
        alone = build(config)
        state = {name: value[member : member + 1] for name, value in twins.state_dict().items()}
        alone.load_state_dict(state)
        torch.testing.assert_close(alone(features[member], TASKS)["a"], together[member], **EXACT)


def test_members_are_independent(config: TorsoConfig) -> None:
    twins = build(config, 2)
    out = twins(noise(3, 6, 7), TASKS)["a"]
    assert not torch.allclose(out[0], out[1])
    out[0].square().sum().backward()
    assert all(p.grad is None or (p.grad[1] == 0).all() for p in twins.parameters())


def test_samples_and_tasks_never_meet(config: TorsoConfig) -> None:
    network = build(config)
    features = noise(3, 6, 7).requires_grad_()
    network(features, TASKS)["a"][1, 4].sum().backward()
    touched = features.grad.abs().sum(-1) > 0
    assert touched.nonzero().tolist() == [[1, 4]]


def test_a_selection_of_tasks_gives_the_same_numbers(config: TorsoConfig) -> None:
    network = build(config)
    features = noise(3, 6, 7)
    full = network(features, TASKS)["a"]
    for row in range(3):
        one = network(features[row : row + 1], TASKS[row : row + 1])["a"]
        torch.testing.assert_close(one[0], full[row], **EXACT)


def test_heads_can_read_some_tasks_only(config: TorsoConfig) -> None:
    network = build(config)
    features, rows = noise(3, 6, 7), torch.tensor([2, 0])
    hidden = network.torso(features, TASKS)
    found = network.read("b", hidden[rows], TASKS[rows])
    torch.testing.assert_close(found, network(features, TASKS)["b"][rows], **EXACT)


def test_tasks_are_told_apart(config: TorsoConfig) -> None:
    network = build(config)
    for parameter in network.parameters():
        with torch.no_grad():
            parameter += 0.3 * noise(*parameter.shape, seed=parameter.numel())
    out = network(noise(1, 6, 7).expand(2, 6, 7), torch.tensor([0, 1]))["a"]
    assert not torch.allclose(out[0], out[1])


def test_gradients_reach_every_weight(config: TorsoConfig) -> None:
    network = build(config)
    everything = torch.arange(4)
    with torch.no_grad():  # HoME's gates start closed to gradients on one side
        for parameter in network.parameters():
            parameter += 0.1 * noise(*parameter.shape, seed=parameter.numel())
    found = network(noise(4, 200, 7), everything)
    (found["a"].square().sum() + found["b"].square().sum()).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert silent == []


def test_the_same_seed_gives_the_same_network(config: TorsoConfig) -> None:
    first, again, other = (build(config, 2, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_output_layers_start_within_their_bound(config: TorsoConfig) -> None:
    for name, parameter in build(config).named_parameters():
        if name.startswith("outputs") and name.endswith("weight"):
            assert 0.45 < parameter.abs().max() <= 0.5


def test_half_precision_is_finite_and_near(config: TorsoConfig) -> None:
    network = build(config, 2).float()
    network.eval()
    features = noise(3, 32, 7).float()
    single = network(features, TASKS)["a"]
    with torch.autocast("cpu", torch.bfloat16):
        half = network(features, TASKS)["a"]
        loss = half.float().square().mean()
    loss.backward()
    assert half.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    # a rounding may turn a choice of experts, so most of the samples are compared, not all
    assert (half.float() - single).abs().median() < 0.05 * single.abs().max()


def test_every_torso_can_be_measured(config: TorsoConfig) -> None:
    network = build(config, 2)
    features = noise(3, 6, 7)
    before = network(features, TASKS)["a"]
    found = torso_diagnostics(network.torso, features, TASKS)
    assert found and all(value == value and abs(value) < 100 for value in found.values())
    assert 0.0 <= found.get("dormant_units", 0.0) <= 1.0
    torch.testing.assert_close(network(features, TASKS)["a"], before, **EXACT)


def test_what_is_kept_of_an_index_reaches_neither_a_graph_nor_training(config: TorsoConfig) -> None:
    class Chosen(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = build(config).float().eval()

        def forward(self, state: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
            return self.network(state[:, None], task)["a"][:, 0]

    module = Chosen()
    state, task = torch.randn(2, 7), torch.tensor([1, 2])
    with torch.inference_mode():
        expected = module(state, task.flip(0)).numpy()
        module(state, task)
    module(state, task).sum().backward()
    session = onnxruntime.InferenceSession(
        chunk_graph(module, {"state": state, "task": task}, 3), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(["chunk"], {"state": state.numpy(), "task": task.flip(0).numpy()})
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_given_embedding_takes_the_place_of_the_own() -> None:
    network = build(CONFIGS["learned"])
    features = noise(3, 6, 7)
    own = network.torso.embedding(TASKS)[0, :, 0].detach()
    torch.testing.assert_close(own.norm(dim=-1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(network(features, TASKS, own)["a"], network(features, TASKS)["a"], **EXACT)
    twins = build(CONFIGS["learned"], members=2)
    wide, each = features.expand(2, *features.shape), own.expand(2, *own.shape)
    expected = twins(features, TASKS, own)["a"]
    for seen, told in ((features, each), (wide, own), (wide, each)):
        torch.testing.assert_close(twins(seen, TASKS, told)["a"], expected, **EXACT)
    given = TorsoConfig(kind="care", width=16, depth=1, embedding=TaskEmbeddingConfig(kind="given", size=6))
    assert build(given)(features, TASKS, own)["a"].shape == (3, 6, 5)
    with pytest.raises(SpaceError, match="pass the task embedding"):
        build(given)(features, TASKS)
    with pytest.raises(SpaceError, match=r"\[3, 6\] is needed; got \[3, 5\]"):
        build(given)(features, TASKS, own[:, :5])


def test_features_may_come_in_parts(config: TorsoConfig) -> None:
    features = noise(3, 6, 7)
    for members in (None, 2):
        torso = build(config, members).torso.eval()
        whole = torso(features, TASKS)
        torch.testing.assert_close(torso((features[..., :5], features[..., 5:]), TASKS), whole, **EXACT)
    with pytest.raises(SpaceError, match=r"got \[3, 6, 5\] and \[3, 6, 1\]"):
        torso((features[..., :5], features[..., 5:6]), TASKS)
    with pytest.raises(SpaceError, match=r"got \[3, 6, 5\] and \[3, 5, 2\]"):
        torso((features[..., :5], features[:, 1:, 5:]), TASKS)


@pytest.mark.parametrize("shape", [(3, 6, 8), (2, 6, 7), (6, 7), (3, 3, 6, 7)])
def test_features_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SpaceError, match="features"):
        build(CONFIGS["mlp"], 2)(noise(*shape), TASKS)


def test_an_unknown_output_is_refused() -> None:
    network = build(CONFIGS["mlp"])
    with pytest.raises(UnknownNameError, match="unknown output 'c'"):
        network.read("c", noise(3, 6, 16), TASKS)
    with pytest.raises(SpaceError, match="2 rows"):
        network.read("a", noise(2, 6, 16), TASKS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "mpl"}, "did you mean 'mlp'"),
        ({"width": 0}, "width=0"),
        ({"depth": 33}, "depth=33"),
        ({"activation": "rellu"}, "did you mean 'relu'"),
        ({"output": "composed"}, "kind=paco"),
        ({"output_bound": 0.0}, "output_bound"),
        ({"kind": "moore", "width": 3}, "do not fit into width=3"),
    ],
)
def test_configurations_that_cannot_be_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(MtrlError, match=message):
        TorsoConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"chosen": 1}, "router would not learn"),
        ({"chosen": 9}, "experts.chosen=9"),
        ({"gate": "tsak"}, "did you mean 'task'"),
        ({"dispatch": "sparse"}, "unknown dispatch"),
        ({"load_decay": 1.0}, "load_decay"),
        ({"balance": -1.0}, "balance"),
    ],
)
def test_mixtures_that_cannot_learn_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(MtrlError, match=message):
        ExpertsConfig(**settings)


def test_parameters_of_the_published_multi_head_networks() -> None:
    """MTMHSAC on MT10: 372,880 in the actor, 346,410 in a critic."""
    actor = TaskNetwork(TorsoConfig(), 39, {"action": 8}, 10)
    critic = TaskNetwork(TorsoConfig(), 43, {"value": 1}, 10)
    assert sum(p.numel() for p in actor.parameters()) == 372_880
    assert sum(p.numel() for p in critic.parameters()) == 346_410
