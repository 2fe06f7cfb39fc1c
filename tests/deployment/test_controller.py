"""The controller acts as the policy that was evaluated: same history, same chunks, same noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtrl.deployment import ArtefactPolicy, Manifest, TaskEntry, open_artefact
from mtrl.deployment.realtime.controller import ChunkController
from mtrl.errors import SpaceError
from mtrl.rollout import Acting, generator_for
from mtrl.rollout.chunk_policy import ChunkPolicy, ChunkSpec, Execution, FunctionSampler

from .bench_suite import SUITE
from .graphs import linear_artefact

HISTORY, CHUNK, EXECUTE = 3, 4, 2
NOISE = np.array([[0.3, -0.2, 0.0], [0.1, 0.4, 0.0]], dtype=np.float32)
WEIGHTS = np.random.default_rng(5).uniform(-0.5, 0.5, (4, 3)).astype(np.float32)


@pytest.mark.parametrize("noise", ["chunk", "episode", "zero"])
def test_it_equals_the_evaluated_policy_tick_by_tick(tmp_path: Path, noise: str) -> None:
    task = SUITE.task("bench/point")
    linear_artefact(tmp_path / "a", [task], WEIGHTS, HISTORY, CHUNK, EXECUTE, NOISE, drawn=noise)
    policy = ArtefactPolicy(open_artefact(tmp_path / "a"))
    evaluated = ChunkPolicy(
        FunctionSampler(
            ChunkSpec(HISTORY, 4, CHUNK, 3, 2),
            lambda history, index, z: policy.act(history[0], int(index[0]), z[0])[None].copy(),
        ),
        Execution(steps=EXECUTE, noise=noise),
    )
    generator = generator_for(3, task.name, 8)
    controller = ChunkController(policy, policy.manifest.tasks[0], generator_for(3, task.name, 8))
    state = evaluated.initial_state(1)
    proposal = np.zeros(2)
    states = np.random.default_rng(1).standard_normal((12, 4), dtype=np.float32)
    for tick, observed in enumerate(states):
        action = evaluated.act(
            {"state": observed[None]},
            np.zeros(1, dtype=np.int64),
            state,
            np.array([tick == 0]),
            acting=Acting(),
            generators=[generator],
        )
        state = action.state
        controller.observe(observed.astype(np.float64))
        if controller.needs_plan(tick):
            controller.plan(tick)
        controller.action(tick, proposal)
        assert proposal.tolist() == action.continuous[0, :2].tolist()


def test_the_history_begins_with_copies_of_the_first_observation(tmp_path: Path) -> None:
    linear_artefact(tmp_path / "a", [SUITE.task("bench/point")], WEIGHTS, history=3, chunk=1, execute=1)
    policy = ArtefactPolicy(open_artefact(tmp_path / "a"))
    fed = []

    class Recorder:
        manifest = policy.manifest

        def act(
            self, state: np.ndarray, task_index: int, z: np.ndarray | None, image: np.ndarray | None
        ) -> np.ndarray:
            fed.append(state[:, 0].tolist())
            return policy.act(state, task_index, z, image)

    controller = ChunkController(Recorder(), policy.manifest.tasks[0], np.random.default_rng(0))  # type: ignore[arg-type]
    for tick in range(4):
        controller.observe(np.array([tick, 0, 0, 0], dtype=float))
        controller.plan(tick)
    assert fed == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]]


def test_the_highest_score_of_the_tasks_own_columns_is_the_choice() -> None:
    entries = (
        TaskEntry("made/steer", 0, 3, 2, 50.0, ""),
        TaskEntry("made/two", 1, 3, 1, 50.0, "", choices=2),
        TaskEntry("made/three", 2, 3, 1, 50.0, "", choices=3),
    )
    manifest = Manifest(entries, state_size=3, action_size=5, chunk=3, execute=3, choices=3)
    chunk = np.array([[0.1, -0.2, 0.3, 0.7, 0.9], [0, 0, 0.8, 0.2, 0], [0, 0, np.nan, 0.2, 0.9]], np.float32)

    class Fixed:
        def __init__(self) -> None:
            self.manifest = manifest

        def act(self, *_: object) -> np.ndarray:
            return chunk

    found = []
    for entry in entries:
        controller = ChunkController(Fixed(), entry, np.random.default_rng(0))  # type: ignore[arg-type]
        controller.plan(0)
        action = np.zeros(entry.action_size)
        for tick in range(3):
            controller.action(tick, action)
            found.append(action.tolist())
    expected = [[*chunk[0, :2].tolist()], [0, 0], [0, 0], [1], [0], [np.nan], [2], [0], [np.nan]]
    for came, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(came, wanted)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"action_size": 4, "choices": 2}, "more choices than the padded choices=2"),
        ({"action_size": 4, "choices": 3}, "wider than the padded action_size=4"),
    ],
)
def test_a_manifest_has_columns_for_every_task(sizes: dict, message: str) -> None:
    entries = (
        TaskEntry("made/steer", 0, 3, 2, 50.0, ""),
        TaskEntry("made/three", 1, 3, 1, 50.0, "", choices=3),
    )
    with pytest.raises(SpaceError, match=message):
        Manifest(entries, state_size=3, **sizes)
