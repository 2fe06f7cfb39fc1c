"""Students of tasks that are seen as images: learned by DAgger beside state vectors, resumed, exported."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from mtrl.deployment.artefact.export import controller_cases, controller_graph, require_policy_parity
from mtrl.distillation import (
    SAME_NOISE,
    Dagger,
    DistillationConfig,
    PixelStudentPolicy,
    student_policy,
)
from mtrl.errors import UnsupportedError
from mtrl.nn import ChunkShape, PixelEncoderConfig
from mtrl.reducer import ALONE
from mtrl.rollout import Acting, Action, Fragment, PolicyState, Version
from mtrl.spaces import ActionSpec, Observation, ObservationSpec
from mtrl.tasks import Score, Task, TaskSet
from mtrl.training import load_state, save_state

from .made import made

SIZE = 20
CONFIG = DistillationConfig(
    network=ChunkShape(width=32, blocks=1, embedding=4),
    pixels=PixelEncoderConfig(kind="small", features=16),
    steps=2400,
    updates=300,
    batch_size=64,
)


def shown(name: str, action: ActionSpec) -> Task:
    """A task that is seen as one grey image."""
    seen = ObservationSpec(pixels=(1, SIZE, SIZE))
    return Task(name, seen, action, 10.0, 1, 10, Score("success"), "1")


TASKS = TaskSet(
    [
        made("made/steer", 3, ActionSpec(continuous=2)),
        shown("made/look", ActionSpec(discrete=3)),
        shown("made/aim", ActionSpec(continuous=1)),
    ]
)


class Looking:
    """Steers against the state; chooses, or aims at, the third of the image that is bright."""

    version, extras = 0, ()

    def initial_state(self, count: int) -> PolicyState:
        """None."""
        return {}

    def act(
        self,
        observation: Observation,
        task_index: npt.NDArray[np.int64],
        state: PolicyState,
        ended: npt.NDArray[np.bool_],
        *,
        acting: Acting,
        generators: Sequence[np.random.Generator],
    ) -> Action:
        """Reads every bucket of the layout, as a policy of mixed tasks does."""
        columns = np.asarray(observation["pixels"])[:, 0].mean(axis=1)
        third = np.stack([columns[:, at : at + 7].mean(1) for at in (0, 7, 13)], axis=1).argmax(1)
        steer = np.tanh(-np.asarray(observation["state"])[:, :2])
        aim = np.stack([third - 1.0, np.zeros(len(third))], axis=1)
        continuous = np.where((task_index == 0)[:, None], steer, 0.7 * aim)
        return Action(continuous.astype(np.float32), np.where(task_index == 1, third, 0), {})


def fragment(task: int, draws: np.random.Generator, steps: int = 100) -> Fragment:
    """Two copies that see states, or images with one bright third."""
    if TASKS[task].observation.pixels is None:
        seen: Observation = {"state": draws.normal(size=(steps + 1, 2, 3)).astype(np.float32)}
    else:
        images = draws.integers(0, 60, (steps + 1, 2, 1, SIZE, SIZE), dtype=np.uint8)
        for place in np.ndindex(steps + 1, 2):
            at = (0, 7, 13)[draws.integers(3)]
            images[place][0, :, at : at + 7] += 150
        seen = {"pixels": images}
    none = np.zeros((steps, 2), dtype=bool)
    numbers = np.zeros((steps + 1, 2), dtype=np.int64)
    return Fragment(
        task,
        Version(),
        seen,
        np.zeros((steps, 2, 2), dtype=np.float32),
        np.zeros((steps, 2), dtype=np.int64),
        np.zeros((steps, 2), dtype=np.float32),
        none,
        none,
        none,
        numbers,
        numbers,
        np.zeros((0, 2), dtype=np.int64),
        {bucket: values[0, :0] for bucket, values in seen.items()},
    )


def learned(updates: int) -> Dagger:
    """A student after two rounds of every task."""
    draws, agent = np.random.default_rng(0), Dagger(CONFIG, Looking(), TASKS, 0)
    for task in (0, 1, 2, 1, 2, 0):
        agent.ingest(fragment(task, draws))
    assert agent.due(2400, ALONE) == 300
    for _ in range(updates):
        agent.update(ALONE)
    return agent


def test_a_student_of_images_and_states_does_as_its_teacher_and_so_does_its_graph() -> None:
    student = student_policy(learned(300).snapshot(), TASKS)
    assert isinstance(student, PixelStudentPolicy)
    draws, states, images = np.random.default_rng(1), [], []
    for task in range(3):
        seen = {b: v[:, 0] for b, v in fragment(task, draws, 60).observations.items()}
        states.append(seen.get("state", np.zeros((0, 0), dtype=np.float32)))
        images.append(seen.get("pixels", np.zeros((0, 0), dtype=np.uint8)))
        rows = (TASKS.layout.zeros(61) | seen, np.full(61, task), {}, np.ones(61, dtype=np.bool_))
        by = [policy.act(*rows, acting=Acting(), generators=[]) for policy in (student, Looking())]
        if task == 1:
            assert (by[0].discrete == by[1].discrete).mean() > 0.95
        own = TASKS[task].action.continuous
        np.testing.assert_allclose(by[0].continuous[:, own:], 0.0)
        assert np.abs(by[0].continuous - by[1].continuous)[:, :own].sum() / 61 < 0.15 * max(own, 1)
    cases = controller_cases(student.student, states, TASKS.layout, 1, images=images)
    assert require_policy_parity(student, cases, TASKS.layout) == 0.0
    session = onnxruntime.InferenceSession(controller_graph(student.student, TASKS.layout))
    feeds = {name: values for name, values in cases.items() if name != "chunk"}
    np.testing.assert_allclose(session.run(["chunk"], feeds)[0], cases["chunk"], atol=1e-5)


def test_a_resumed_distillation_of_images_goes_on_exactly(tmp_path: Path) -> None:
    agent, resumed = learned(5), Dagger(CONFIG, Looking(), TASKS, 0)
    save_state(tmp_path / "shared", agent.shared_state())
    save_state(tmp_path / "local", agent.local_state())
    resumed.restore(load_state(tmp_path / "shared"), load_state(tmp_path / "local"))
    assert [agent.update(ALONE) for _ in range(3)] == [resumed.update(ALONE) for _ in range(3)]


def test_demonstrations_of_images_are_left_to_dagger() -> None:
    with pytest.raises(UnsupportedError, match=r"made/look, made/aim shows images; distil with .*=dagger"):
        SAME_NOISE.build(dataclasses.replace(CONFIG), TASKS, 0, parents={"teacher": Looking()})
