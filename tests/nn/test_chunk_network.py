"""The network that teachers and students share, and the average of its weights."""

import pytest
import torch

from mtrl.errors import OutOfRangeError
from mtrl.nn import ChunkNetwork, ChunkShape, ResidualMLP, update_average
from mtrl.spaces import ActionSpec, Layout, ObservationSpec

BACKBONES = ("mlp", "transformer")
LAYOUT = Layout(
    observations=(ObservationSpec(state=3), ObservationSpec(state=2)),
    actions=(ActionSpec(continuous=2), ActionSpec(continuous=1)),
)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_fresh_network_outputs_zero(backbone: str) -> None:
    net = ChunkNetwork(ChunkShape(width=16, blocks=2, chunk=4, backbone=backbone), LAYOUT)
    task = torch.tensor([0, 1])
    out = net(net.condition(torch.randn(2, 1, 3), task), task, torch.randn(2, 4, 2), torch.zeros(2))
    assert out.shape == (2, 4, 2) and (out == 0).all()


def test_states_are_standardised_per_task_masked_and_clipped() -> None:
    net = ChunkNetwork(ChunkShape(width=16, blocks=1), LAYOUT)
    net.mean.copy_(torch.tensor([[1.0, 1.0, 1.0], [10.0, 10.0, 10.0]]))
    net.scale.copy_(torch.tensor([[2.0, 2.0, 2.0], [5.0, 5.0, 5.0]]))
    condition = net.condition(torch.tensor([[[3.0, 1.0, 1e6]], [[15.0, 0.0, 7.0]]]), torch.tensor([0, 1]))
    torch.testing.assert_close(condition[:, :3], torch.tensor([[1.0, 0.0, 5.0], [1.0, -2.0, 0.0]]))


def test_tasks_differ_only_by_their_embedding() -> None:
    net = ChunkNetwork(ChunkShape(width=16, blocks=1), LAYOUT)
    both = net.condition(torch.zeros(2, 1, 3), torch.tensor([0, 1]))
    torch.testing.assert_close(both[:, :3], torch.zeros(2, 3))
    assert not torch.equal(both[0, 3:], both[1, 3:])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_output_depends_on_every_input_of_its_task(backbone: str) -> None:
    torch.manual_seed(0)
    net = ChunkNetwork(ChunkShape(width=16, blocks=2, chunk=3, backbone=backbone), LAYOUT)
    torch.nn.init.normal_(net.torso.leave.weight)
    states, chunk = torch.zeros(1, 1, 3, requires_grad=True), torch.randn(1, 3, 2, requires_grad=True)
    task = torch.tensor([1])
    out = net(net.condition(states, task), task, chunk, torch.zeros(1))
    for place in range(3):
        seen = torch.autograd.grad(out[0, place, 0], (states, chunk), retain_graph=True)
        # the second task has two numbers in its state and one in its action
        assert ((seen[0] != 0) == torch.tensor([[[1, 1, 0]]]).bool()).all()
        assert ((seen[1] != 0) == torch.tensor([[[1, 0]] * 3]).bool().reshape(1, 3, 2)).all()
    assert (out[..., 1] == 0).all()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_noise_levels_are_told_apart(backbone: str) -> None:
    net = ChunkNetwork(ChunkShape(width=16, blocks=1, backbone=backbone), LAYOUT)
    torch.nn.init.normal_(net.torso.leave.weight)
    task = torch.zeros(2, dtype=torch.int64)
    out = net(
        net.condition(torch.zeros(2, 1, 3), task), task, torch.zeros(2, 8, 2), torch.tensor([-0.9, 0.7])
    )
    assert (out[0] - out[1]).abs().max() > 1e-2


def test_gradients_reach_every_weight() -> None:
    torch.manual_seed(0)
    net = ResidualMLP(3, 2, 8, 2)
    torch.nn.init.normal_(net.leave.weight)
    net(torch.randn(5, 3)).square().sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in net.parameters()
    )


def test_the_average_moves_by_one_minus_decay() -> None:
    average, source = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    with torch.no_grad():
        average.weight.fill_(1.0), source.weight.fill_(3.0)
    update_average(average, source, 0.75)
    assert average.weight.item() == pytest.approx(1.5)


@pytest.mark.parametrize(("key", "value"), [("width", 0), ("chunk", 65), ("noise_features", 3)])
def test_sizes_out_of_range_are_refused(key: str, value: int) -> None:
    with pytest.raises(OutOfRangeError, match=f"{key}={value}"):
        ChunkShape(**{key: value})


def test_heads_divide_the_width() -> None:
    with pytest.raises(OutOfRangeError, match=r"heads=3 is out of range; expected a divisor of width=16"):
        ChunkShape(width=16, backbone="transformer", heads=3)
