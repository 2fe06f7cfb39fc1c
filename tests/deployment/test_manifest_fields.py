"""No field of a received manifest loosens what holds on the robot, whoever wrote its hashes again."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

from mtrl.deployment import (
    GuardConfig,
    Limits,
    Manifest,
    RobotConfig,
    TaskEntry,
    TrainingProvenance,
    compatible_task,
    verify,
)
from mtrl.errors import GuardError, MtrlError
from mtrl.integrity import write_manifest
from mtrl.tasks import Task

from ..sweeps import sampled
from .bench_suite import SUITE, BenchSuite
from .graphs import STEER, linear_artefact

SITE = RobotConfig(
    action_limit=0.9,
    rate_limit=0.5,
    acceleration_limit=0.3,
    observation_limit=50.0,
    soft_start_s=1.0,
    hold_last=("bench:1",),
)
TWIN = "bench/twin"

EDITS: dict[str, list[object]] = {
    "tasks": [[], "all"],
    "state_size": [3, 5, 0, math.nan],
    "action_size": [1, 2, 4, 1.5],
    "history": [0, 2],
    "chunk": [0, 1, 5],
    "execute": [0, 1, 4, 5],
    "noise_size": [-1, 1],
    "noise": ["zero", "episode", "pink"],
    "action_low": [-2, -0.5, 0, math.nan, -math.inf],
    "action_high": [2, 0.5, 0, math.nan, math.inf],
    "opset": [16, 18, 0],
    "minimum_onnxruntime": ["0.1", "99.0", "x"],
    "provenance": [{}, None],
    "choices": [1, 3, 4, -1, 0.5],
    "schema": [0, -1, 1, 4],
    "joints": [[{"name": "x", "low": -9, "high": 9, "velocity": 99}], [{"name": "x"}], None],
    "pixels": [[2, 5, 3], [1], None],
    "tasks.0.pixels": [True, 1],
    "tasks.0.observation": [[{"term": "position.x", "unit": "rad"}], [{"term": "1.0"}] * 4],
    "tasks.0.action": [[{"term": "shift.x", "unit": "rad"}] * 2, 3],
    "tasks.0.name": [TWIN, "bench/none", "bench", ""],
    "tasks.0.index": [-1, 1],
    "tasks.0.state_size": [1, 3, 0, -3, 5],
    "tasks.0.action_size": [1, 0, -1, 3],
    "tasks.0.rate_hz": [0.4, 0.0, -50.0, 1e9, math.nan, math.inf],
    "tasks.0.protocol_hash": ["0" * 16, ""],
    "tasks.0.options": [[["horizon", 10**9]], [["fault", "nan"]]],
    "tasks.0.choices": [1, 2, -1, 1e9],
    "tasks.0.limits": [{}, None],
    "tasks.0.limits.action": [1e9, 0.5, 0, -1, math.nan, math.inf],
    "tasks.0.limits.rate": [1e9, 0.1, 0, -1, math.nan, math.inf],
    "tasks.0.limits.observation": [1e9, 1.0, 0, -1, math.nan, math.inf],
    "provenance.run": ["", "another"],
    "provenance.commit": ["0000000"],
    "provenance.seed": [-1, 2**70],
    "provenance.success": [1.0, 2.0, math.nan],
    "provenance.success_interval": [[0.0, 1.0], [math.nan, 2.0]],
}
"""Dotted field -> values that a sender might write there."""


def fields_of(kind: type, place: str = "") -> set[str]:
    return {place + field.name for field in dataclasses.fields(kind)}


def resigned(artefact: Path, key: str, value: object) -> None:
    """Writes a value into the manifest, the graph's copy of it, and the hashes."""
    fields = json.loads((artefact / "manifest.json").read_text())
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    section: Any = fields
    for part in path:
        section = section[part]
    section[last] = section[last] * 2 if value == "all" else value
    text = json.dumps(fields, indent=2, sort_keys=True) + "\n"
    (artefact / "manifest.json").write_text(text)
    model = onnx.load(artefact / "policy.onnx")
    onnx.helper.set_model_props(model, {"mtrl.manifest": text})
    onnx.save(model, artefact / "policy.onnx")
    write_manifest(artefact)


def admitted(artefact: Path) -> tuple[Task, GuardConfig]:
    """The task and the limits with which a robot would fly the first task."""
    manifest = verify(artefact).manifest
    entry = manifest.tasks[0]
    return compatible_task(manifest, entry.name), SITE.guard(manifest, entry)


def test_every_field_is_edited_below() -> None:
    assert set(EDITS) == (
        fields_of(Manifest)
        | fields_of(TaskEntry, "tasks.0.")
        | fields_of(Limits, "tasks.0.limits.")
        | fields_of(TrainingProvenance, "provenance.")
    )


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("honest") / "artefact"
    linear_artefact(directory, [SUITE.task("bench/point")], STEER)
    return directory


@pytest.fixture(scope="module")
def flown(honest: Path) -> tuple[Task, GuardConfig]:
    """What the honest artefact is admitted with."""
    manifest = verify(honest).manifest
    return SUITE.task("bench/point"), SITE.guard(manifest, manifest.tasks[0])


@pytest.mark.parametrize("key", sampled(EDITS, share=3))
def test_an_edited_field_is_refused_or_loosens_nothing(
    key: str, bench: BenchSuite, honest: Path, flown: tuple[Task, GuardConfig], tmp_path: Path
) -> None:
    task, before = flown
    assert (before.soft_start_ticks, before.action_limit, before.rate_limit) == (50, 0.9, 0.5)
    for number, value in enumerate(EDITS[key]):
        artefact = shutil.copytree(honest, tmp_path / str(number))
        resigned(artefact, key, value)
        try:
            found, guard = admitted(artefact)
        except MtrlError:
            continue
        assert found == task, (key, value)
        tighter = ("action_limit", "rate_limit", "observation_limit")
        assert all(0 < getattr(guard, name) <= getattr(before, name) for name in tighter), (key, value)
        same = {name: getattr(before, name) for name in tighter}
        assert dataclasses.replace(guard, **same) == before, (key, value)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("tasks.0.rate_hz", 0.4, "rate_hz 0.4; the installed suite has 50.0"),
        ("tasks.0.state_size", 3, "state_size 3; the installed suite has 4"),
        ("tasks.0.action_size", 1, "action_size 1; the installed suite has 2"),
        ("tasks.0.name", TWIN, "protocol"),
        ("tasks.0.protocol_hash", "0" * 16, "protocol 0000000000000000"),
    ],
)
def test_what_the_installed_task_knows_is_refused_by_name(
    key: str, value: object, named: str, bench: BenchSuite, honest: Path, tmp_path: Path
) -> None:
    artefact = shutil.copytree(honest, tmp_path / "artefact")
    resigned(artefact, key, value)
    with pytest.raises(GuardError, match=named):
        admitted(artefact)
