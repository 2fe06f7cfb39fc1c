"""Content that is wrong under right hashes, by its kinds: each is refused, naming the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest

from mtrl.data import dataset_id_of, read_dataset, write_dataset
from mtrl.deployment import verify
from mtrl.errors import IntegrityError, MtrlError
from mtrl.integrity import write_manifest
from mtrl.training import load_state, save_state

from ..data.samples import STATE, trajectories_of
from ..deployment.bench_suite import SUITE
from ..deployment.graphs import STEER, linear_artefact


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    linear_artefact(tmp_path / "artefact", [SUITE.task("bench/point")], STEER)
    return tmp_path / "artefact"


def rewrite_manifest(artefact: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the manifest, and the copy of it in the graph, and makes the hashes right."""
    fields = json.loads((artefact / "manifest.json").read_text())
    change(fields)
    text = json.dumps(fields, indent=2, sort_keys=True) + "\n"
    model = onnx.load_from_string((artefact / "policy.onnx").read_bytes())
    onnx.helper.set_model_props(model, {"mtrl.manifest": text})
    (artefact / "manifest.json").write_text(text)
    (artefact / "policy.onnx").write_bytes(model.SerializeToString())
    write_manifest(artefact)


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields["tasks"][0].update(state_size=0),
        lambda fields: fields["tasks"][0].update(action_size=-3),
        lambda fields: fields["tasks"].append({**fields["tasks"][0], "index": 1}),
        lambda fields: fields["tasks"][0].update(name=None),
        lambda fields: fields["tasks"][0].update(rate_hz=-1.0),
        lambda fields: fields.update(tasks={}),
        lambda fields: fields.update(tasks=[]),
        lambda fields: fields.update(history=2**40),
        lambda fields: fields.update(provenance=3),
        lambda fields: fields.update(schema="1"),
        lambda fields: fields["tasks"][0].update(options=[["a"]]),
    ],
)
def test_a_manifest_is_refused(artefact: Path, change: Callable[[dict[str, Any]], object]) -> None:
    rewrite_manifest(artefact, change)
    with pytest.raises(IntegrityError, match=str(artefact)):
        verify(artefact)


@pytest.mark.parametrize("task", [99, -1, 2**62])
def test_a_golden_task_is_one_of_the_manifest(artefact: Path, task: int) -> None:
    golden = dict(np.load(artefact / "golden.npz"))
    golden["task"][5] = task
    np.savez(artefact / "golden.npz", **golden)
    write_manifest(artefact)
    with pytest.raises(IntegrityError, match=r"golden\.npz .*a task is not one of the 1"):
        verify(artefact)


def at(name: str, value: float) -> Callable[[h5py.Group], None]:
    """Puts a number into an array."""

    def change(episode: h5py.Group) -> None:
        array = episode[name][()]
        array.flat[1] = value
        episode[name][...] = array

    return change


def link(name: str, target: object) -> Callable[[h5py.Group], None]:
    """Puts a link in the place of an array."""

    def change(episode: h5py.Group) -> None:
        del episode[name]
        episode[name] = target

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (at("observations", np.nan), "not finite"),
        (at("rewards", np.inf), "not finite"),
        (at("actions", 1e30), "lie from -1 to 1"),
        (at("infos/expert_action", np.nan), "lie from -1 to 1"),
        (link("observations", h5py.ExternalLink("other.hdf5", "/episode_0/observations")), "is a link"),
        (link("observations", h5py.SoftLink("/episode_1/observations")), "is a link"),
        (lambda episode: episode.pop("rewards"), "holds no rewards"),
        (lambda episode: episode.attrs.__setitem__("start_id", -1), "start_id"),
        (lambda episode: episode.attrs.__delitem__("start_id"), "start_id"),
    ],
)
def test_a_dataset_is_refused(tmp_path: Path, change: Callable[[h5py.Group], object], reason: str) -> None:
    name = dataset_id_of(STATE)
    write_dataset(tmp_path, name, STATE, trajectories_of(STATE, [4, 4]), {})
    with h5py.File(tmp_path / name / "data" / "main_data.hdf5", "a") as file:
        change(file["episode_0"])
        file.copy("episode_1", h5py.File(tmp_path / name / "data" / "other.hdf5", "w"), "episode_0")
    write_manifest(tmp_path / name)
    with pytest.raises(IntegrityError, match=rf"main_data\.hdf5 .*{reason}"):
        read_dataset(tmp_path, name, STATE)


def test_a_dataset_builds_no_environment(tmp_path: Path) -> None:
    name = dataset_id_of(STATE)
    data = trajectories_of(STATE, [4])
    write_dataset(tmp_path, name, STATE, data, {})
    file = tmp_path / name / "data" / "metadata.json"
    described = json.loads(file.read_text())
    del described["observation_space"], described["action_space"]
    described["env_spec"] = json.dumps({"id": "a-v0", "entry_point": "module_of_a_stranger:Env"})
    file.write_text(json.dumps(described))
    write_manifest(tmp_path / name)
    assert read_dataset(tmp_path, name, STATE).step_count == data.step_count


@pytest.mark.parametrize(
    "tree",
    [
        '{"strings": ["a"], "dtype": "<U100000000", "shape": [1]}',
        '{"strings": ["abc"], "dtype": "<U1", "shape": [1]}',
        '{"scalar": 10000000000, "dtype": "|V8"}',
        '{"scalar": 1, "dtype": "O"}',
        '{"array": "state/a", "dtype": "<f4"}',
        '{"array": "state/a", "dtype": "<c16"}',
        '{"tensor": "absent"}',
        '{"items": [[[1], 2]]}',
        '{"items": 3}',
        '{"int": "zz"}',
        '{"float": "0.5"}',
        '{"unknown": 1}',
        "[" * 900 + "]" * 900,
        "[1e999]",
        '{"dict": {"a": 1, "a": 2}}',
        "",
    ],
)
def test_a_saved_state_is_refused(tmp_path: Path, tree: str) -> None:
    save_state(tmp_path / "state", {"a": np.arange(3)})
    text = f'{{"format": "mtrl-state", "version": 1, "tree": {tree}}}'
    (tmp_path / "state" / "state.json").write_text(text)
    write_manifest(tmp_path / "state")
    with pytest.raises(MtrlError, match=r"state\.json"):
        load_state(tmp_path / "state")
