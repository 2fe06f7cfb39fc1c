"""Diagnostics of mixtures, worked out by hand."""

import math

import pytest
import torch

from mtrl.nn import (
    MooreConfig,
    TorsoConfig,
    build_torso,
    torso_diagnostics,
)
from mtrl.nn.expert_diagnostics import (
    dormant_fraction,
    expert_cosine,
    expert_load,
    gate_entropy,
    load_variation,
    task_expert_information,
)

# two tasks, two samples each, three experts
GATES = torch.tensor([[[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]], [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])


def test_load_by_hand() -> None:
    # choices: expert 0 three times, expert 1 twice, expert 2 once
    torch.testing.assert_close(expert_load(GATES), torch.tensor([3, 2, 1], dtype=torch.float64) / 6)
    # deviation of (1/2, 1/3, 1/6) around 1/3 is sqrt(2/3)/6
    assert load_variation(expert_load(GATES)).item() == pytest.approx(math.sqrt(2 / 3) / 2)


def test_entropy_by_hand() -> None:
    # ln 2, ln 2, 0, 0 over ln 3
    assert gate_entropy(GATES).item() == pytest.approx(0.5 * math.log(2) / math.log(3))
    assert gate_entropy(torch.full((2, 4, 8), 0.1)).item() == pytest.approx(1.0)


def test_information_by_hand() -> None:
    # p(k, e) = [[1/4, 1/4, 0], [1/4, 0, 1/4]]; p(e) = (1/2, 1/4, 1/4)
    assert task_expert_information(GATES).item() == pytest.approx(0.5 * math.log(2))
    own = torch.eye(3)[:, None].expand(3, 5, 3)
    assert task_expert_information(own).item() == pytest.approx(math.log(3))
    same = torch.tensor([0.2, 0.8]).expand(4, 5, 2)
    assert task_expert_information(same).item() == pytest.approx(0.0, abs=1e-12)


def test_ensembles_are_measured_member_by_member() -> None:
    both = torch.stack([GATES, torch.full_like(GATES, 1 / 3)])
    assert expert_load(both).shape == (2, 3)
    torch.testing.assert_close(gate_entropy(both)[1], torch.tensor(1.0, dtype=torch.float64))


def test_cosine_by_hand() -> None:
    # experts along x, along x twice as long, and along y in one sample and x in the other
    outputs = torch.tensor([[[[1.0, 0], [1, 0]]], [[[2.0, 0], [2, 0]]], [[[0.0, 3], [3, 0]]]])
    expected = torch.tensor([[1.0, 1, 0.5], [1, 1, 0.5], [0.5, 0.5, 1]], dtype=torch.float64)
    torch.testing.assert_close(expert_cosine(outputs), expected)


def test_dormancy_by_hand() -> None:
    # mean sizes 2, 2, 0, 0.04: layer mean 1.01, scores 1.98, 1.98, 0, 0.0396
    hidden = torch.tensor([[[2.0, -1.0, 0.0, 0.08], [2.0, 3.0, 0.0, 0.0]]])
    assert dormant_fraction(hidden).item() == 0.25
    assert dormant_fraction(hidden, threshold=0.05).item() == 0.5
    assert dormant_fraction(torch.zeros(1, 2, 4)).item() == 1.0


def test_moores_experts_are_measured_as_orthogonal() -> None:
    torso = build_torso(TorsoConfig(kind="moore", width=32, depth=2, moore=MooreConfig(experts=4)), 5, 3, 2)
    found = torso_diagnostics(torso, torch.randn(3, 6, 5), torch.arange(3))
    assert abs(found["expert_cosine/0"]) < 1e-4
    assert 0 < found["gate_entropy/0"] <= 1 and found["expert_load_max/0"] == pytest.approx(0.25)


def test_dead_units_of_a_torso_are_found() -> None:
    torso = build_torso(TorsoConfig(kind="mlp", width=8, depth=1), 5, 3)
    with torch.no_grad():
        torso.stack.linears[0].bias[0, :4] = -1e6
        torso.stack.linears[0].bias[0, 4:] = 10.0
    found = torso_diagnostics(torso, torch.randn(3, 6, 5), torch.arange(3))
    assert found == {"dormant_units": 0.5}
