"""A controller becomes a graph and golden cases; one that is not what it says it is gets refused."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from mtrl.deployment.artefact.export import controller_cases, controller_graph, require_policy_parity
from mtrl.errors import IntegrityError, SpaceError
from mtrl.nn import TaskNetwork, TorsoConfig
from mtrl.rollout import ChunkPolicy, ChunkSpec, Execution, FunctionSampler
from mtrl.spaces import ActionSpec, Layout, ObservationSpec

LAYOUT = Layout(
    observations=(ObservationSpec(state=3), ObservationSpec(state=5)),
    actions=(ActionSpec(continuous=2), ActionSpec(continuous=4)),
)


class Linear(nn.Module):
    """tanh(state W_k), masked; `twist` spoils it."""

    def __init__(self, twist: str = "") -> None:
        super().__init__()
        weight = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("mask", torch.from_numpy(LAYOUT.continuous_mask).float())
        self.twist = twist

    def forward(self, state: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        raw = torch.bmm(state[:, None], self.weight[task])[:, 0]
        action = torch.tanh(raw) * self.mask[task]
        spoiled = {"wide": raw, "nan": action / 0.0 * 0.0, "narrow": action[:, :3], "double": action.double()}
        return spoiled.get(self.twist, action)


def states() -> list[np.ndarray]:
    draws = np.random.default_rng(0)
    return [draws.normal(2.0, 0.1, (40, 3)), draws.normal(-1.0, 3.0, (7, 5))]


def policy(controller: nn.Module, shift: float = 0.0) -> ChunkPolicy:
    def plan(state: np.ndarray, task: np.ndarray, z: np.ndarray) -> np.ndarray:
        action = controller(torch.from_numpy(state[:, 0]), torch.from_numpy(task)).numpy()
        return np.clip(action + np.float32(shift), -1, 1)[:, None]

    return ChunkPolicy(FunctionSampler(ChunkSpec(1, 5, 1, 4), plan), Execution(steps=1))


def test_golden_cases_are_visited_states_and_states_far_from_them() -> None:
    cases = controller_cases(Linear(), states(), LAYOUT, seed=1)
    assert cases["state"].shape == (32, 1, 5) and cases["chunk"].shape == (32, 1, 4)
    assert cases["task"].tolist() == [0] * 16 + [1] * 16
    first = cases["state"][:16, 0]
    assert (first[:, 3:] == 0).all()
    far = np.abs(first[:, :3] - 2.0).max(axis=1) > 1.0
    assert far.tolist() == [row % 4 == 0 for row in range(16)]
    assert (np.float32(states()[0][[3, 39]]) == first[[1, 15], :3]).all()


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_the_graph_computes_the_controller_for_any_number_of_rows(count: int) -> None:
    controller = Linear()
    session = onnxruntime.InferenceSession(
        controller_graph(controller, LAYOUT), providers=["CPUExecutionProvider"]
    )
    draws = np.random.default_rng(count)
    state = draws.standard_normal((count, 1, 5)).astype(np.float32)
    task = draws.integers(0, 2, count)
    (chunk,) = session.run(["chunk"], {"state": state, "task": task})
    expected = controller(torch.from_numpy(state[:, 0]), torch.from_numpy(task)).numpy()
    np.testing.assert_allclose(chunk[:, 0], expected, atol=1e-6)


def test_a_network_that_reshapes_takes_no_rows_too() -> None:
    """Without rows to spare, this one ends the process."""
    network = TaskNetwork(
        TorsoConfig(kind="care", width=8, depth=2),
        5,
        {"action": 4},
        2,
        None,
        torch.Generator().manual_seed(0),
    )

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network.requires_grad_(False).eval()

        def forward(self, state: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
            return self.network(state.unsqueeze(1), task)["action"].squeeze(1)

    session = onnxruntime.InferenceSession(
        controller_graph(Rows(), LAYOUT), providers=["CPUExecutionProvider"]
    )
    for count in (3, 0):
        feeds = {"state": np.ones((count, 1, 5), np.float32), "task": np.ones(count, np.int64)}
        assert session.run(None, feeds)[0].shape == (count, 1, 4)


def test_a_graph_names_its_batch_and_fixes_the_other_axes() -> None:
    session = onnxruntime.InferenceSession(
        controller_graph(Linear(), LAYOUT), providers=["CPUExecutionProvider"]
    )
    shapes = {node.name: node.shape for node in (*session.get_inputs(), *session.get_outputs())}
    assert shapes == {"state": ["batch", 1, 5], "task": ["batch"], "chunk": ["batch", 1, 4]}


@pytest.mark.parametrize("task", [-1, -2, 2])
def test_a_graph_fails_for_a_task_that_it_does_not_have(task: int) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        controller_graph(Linear(), LAYOUT), options, providers=["CPUExecutionProvider"]
    )
    with pytest.raises(Exception, match="out of data bounds"):
        session.run(None, {"state": np.zeros((1, 1, 5), np.float32), "task": np.array([task])})


@pytest.mark.parametrize(
    ("twist", "message"),
    [
        ("wide", r"finite actions in \[-1, 1\]; \d+ of 128 numbers are none"),
        ("nan", "128 of 128 numbers are none, the first nan for task 0"),
        ("narrow", r"float32 actions \[32, 4\]; got float32 \[32, 3\]"),
        ("double", "got float64"),
    ],
)
def test_a_controller_that_breaks_its_contract_is_refused(twist: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        controller_cases(Linear(twist), states(), LAYOUT, seed=1)


def test_a_controller_must_act_like_the_policy() -> None:
    controller = Linear()
    cases = controller_cases(controller, states(), LAYOUT, seed=1)
    assert require_policy_parity(policy(controller), cases, LAYOUT) == 0.0
    with pytest.raises(IntegrityError, match="must act alike"):
        require_policy_parity(policy(controller, 1e-3), cases, LAYOUT)
