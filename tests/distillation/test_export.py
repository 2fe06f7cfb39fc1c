"""Export: torch, numpy and ONNX Runtime agree for every task, also far outside the data."""

import numpy as np
import onnxruntime
import pytest
import torch

from mtrl.distillation import (
    FirstStep,
    Student,
    StudentForm,
    export_onnx,
    golden_cases,
    require_reference_parity,
)
from mtrl.errors import IntegrityError
from mtrl.nn import ChunkShape
from mtrl.rollout import Execution
from mtrl.spaces import ActionSpec
from mtrl.tasks import TaskSet

from ..agents.demonstrations import choice_tasks
from .made import made

KINDS = {
    "continuous": choice_tasks(),
    "discrete": TaskSet(
        [made("made/three", 3, ActionSpec(discrete=3)), made("made/two", 2, ActionSpec(discrete=2))]
    ),
    "mixed": TaskSet(
        [made("made/three", 3, ActionSpec(discrete=3)), made("made/steer", 2, ActionSpec(continuous=2))]
    ),
}


def student(noise: bool, history: int = 2, tasks: TaskSet = KINDS["continuous"]) -> Student:
    """A student with every weight away from its initial value."""
    shape = ChunkShape(width=32, blocks=2, history=history, chunk=3, embedding=4)
    size = 3 * 2 if noise else 0
    form = StudentForm(shape, Execution(steps=1), size, FirstStep(0.99, 0.0125, 0.5, 0.75))
    made = Student(form, tasks.layout)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        made.network.mean += 0.5 * made.network.state_mask
        made.network.scale *= 2.0
    return made.requires_grad_(False).eval()


@pytest.mark.parametrize("noise", [True, False])
def test_torch_numpy_and_onnx_runtime_agree(noise: bool) -> None:
    made = student(noise)
    cases = golden_cases(made, choice_tasks().layout, seed=1, per_task=5000)
    assert len(cases["state"]) == 10_000
    assert require_reference_parity(made, cases) <= 1e-5
    session = onnxruntime.InferenceSession(export_onnx(made), providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_inputs()] == ["state", "task", *(["z"] if noise else [])]
    feeds = {name: cases[name] for name in ("state", "task", "z") if name in cases}
    (computed,) = session.run(["chunk"], feeds)
    assert np.abs(computed - cases["chunk"]).max() <= 1e-5
    assert np.abs(cases["chunk"]).max() <= 1.0


@pytest.mark.parametrize("kind", ["discrete", "mixed"])
def test_choices_are_probabilities_on_which_all_agree(kind: str) -> None:
    tasks = KINDS[kind]
    found = student(False, tasks=tasks)
    cases = golden_cases(found, tasks.layout, seed=1, per_task=1000)
    assert require_reference_parity(found, cases) <= 1e-5
    session = onnxruntime.InferenceSession(export_onnx(found), providers=["CPUExecutionProvider"])
    (computed,) = session.run(["chunk"], {name: cases[name] for name in ("state", "task")})
    assert np.abs(computed - cases["chunk"]).max() <= 1e-5
    width = tasks.layout.continuous_size
    for k, task in enumerate(tasks):
        chunk = cases["chunk"][cases["task"] == k]
        own = (
            chunk[:, :, width : width + task.action.discrete] if task.action.is_discrete else chunk[:, :, :2]
        )
        others = np.delete(chunk, np.arange(width, width + task.action.discrete), axis=2)
        if task.action.is_discrete:
            np.testing.assert_allclose(own.sum(2), 1.0, atol=1e-5)
            assert (own > 0).all() and (others == 0).all()
            assert (own.std(axis=0) > 0.01).all(), "states change them"
        else:
            assert np.abs(own).max() > 0.5 and (chunk[:, :, 2:] == 0).all()


def test_the_graph_takes_any_batch() -> None:
    made = student(True)
    session = onnxruntime.InferenceSession(export_onnx(made), providers=["CPUExecutionProvider"])
    for count in (0, 1, 7):
        feeds = {
            "state": np.zeros((count, 2, 3), np.float32),
            "task": np.zeros(count, np.int64),
            "z": np.zeros((count, 6), np.float32),
        }
        assert session.run(None, feeds)[0].shape == (count, 3, 2)


def test_a_wrong_reference_is_caught() -> None:
    made = student(True)
    cases = golden_cases(made, choice_tasks().layout, seed=1)
    cases["chunk"] = cases["chunk"] + 1e-3
    with pytest.raises(IntegrityError, match="differ by"):
        require_reference_parity(made, cases)


def test_the_reference_masks_padding() -> None:
    made = student(True, history=1)
    cases = golden_cases(made, choice_tasks().layout, seed=2)
    chunk = made.reference(cases["state"], cases["task"], cases["z"])
    assert (chunk[cases["task"] == 0][..., 1] == 0).all()


@pytest.mark.parametrize(("noise", "kind"), [(True, "continuous"), (False, "continuous"), (False, "mixed")])
def test_folding_changes_nothing_but_rounding(noise: bool, kind: str) -> None:
    made = student(noise, tasks=KINDS[kind])
    cases = golden_cases(made, KINDS[kind].layout, seed=3, per_task=100)
    inputs = [torch.as_tensor(cases[name]) for name in ("state", "task", "z") if name in cases]
    with torch.no_grad():
        torch.testing.assert_close(made.folded()(*inputs), made(*inputs), rtol=0, atol=2e-6)
