"""Artefacts: what is written reads back and verifies; whatever was touched is refused by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from mtrl.deployment import (
    ArtefactPolicy,
    Manifest,
    TaskEntry,
    open_artefact,
    read_manifest,
    verify,
    write_artefact,
)
from mtrl.errors import ExistsError, IntegrityError, SpaceError, UnknownNameError
from mtrl.integrity import write_manifest

from .bench_suite import SUITE
from .graphs import STEER, linear_artefact, linear_golden, linear_graph

NOISE = np.array([[0.5, 0, 0], [0, 0.25, 0]], dtype=np.float32)


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    linear_artefact(tmp_path / "artefact", [SUITE.task("bench/point")], STEER, history=2, noise=NOISE)
    return tmp_path / "artefact"


def edit_manifest(artefact: Path, **changes: object) -> None:
    """Rewrites the manifest together with its hash, as someone who knows the format would."""
    path = artefact / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    write_manifest(artefact)


def test_an_artefact_verifies_and_its_id_is_the_root_hash(artefact: Path) -> None:
    report = verify(artefact)
    assert len(report.artefact) == 64
    assert report.golden_error <= 1e-5
    assert report.manifest == read_manifest(artefact)


def test_the_policy_computes_the_graph_on_the_newest_state(artefact: Path) -> None:
    policy = ArtefactPolicy(open_artefact(artefact))
    state = np.array([[9, 9, 9, 9], [0.1, 0.2, 0.13, 0.15]], dtype=np.float32)
    chunk = policy.act(state, 0, np.array([0.4, 0.4], dtype=np.float32))
    # 10 (0.13 - 0.1) + 0.5 * 0.4 = 0.5 and 10 (0.15 - 0.2) + 0.25 * 0.4 = -0.4, repeated 4 times
    assert chunk == pytest.approx(np.tile([0.5, -0.4, 0.0], (4, 1)), abs=1e-6)
    assert policy.act(state, 0, np.zeros(2, dtype=np.float32))[0] == pytest.approx([0.3, -0.5, 0.0], abs=1e-6)


@pytest.mark.parametrize("name", ["policy.onnx", "manifest.json", "golden.npz"])
def test_one_changed_byte_is_refused_naming_the_file(artefact: Path, name: str) -> None:
    content = bytearray((artefact / name).read_bytes())
    content[len(content) // 2] ^= 1
    (artefact / name).write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match=name):
        verify(artefact)


@pytest.mark.parametrize("name", ["policy.onnx", "manifest.json", "golden.npz", "manifest.sha256"])
def test_a_missing_file_is_refused_naming_it(artefact: Path, name: str) -> None:
    (artefact / name).unlink()
    with pytest.raises(IntegrityError, match=name):
        verify(artefact)


def test_a_file_that_the_hashes_leave_out_is_refused(artefact: Path) -> None:
    hashes = artefact / "manifest.sha256"
    hashes.write_text("".join(line for line in hashes.read_text().splitlines(True) if "golden" not in line))
    with pytest.raises(IntegrityError, match=r"does not list golden\.npz"):
        verify(artefact)


def test_what_was_verified_acts_whatever_becomes_of_the_files(artefact: Path) -> None:
    contents = verify(artefact).contents
    for file in artefact.iterdir():
        file.write_bytes(b"")
    chunk = ArtefactPolicy(contents).act(
        np.array([[0, 0, 0, 0], [0.1, 0.2, 0.13, 0.15]], dtype=np.float32), 0
    )
    assert chunk[0] == pytest.approx([0.3, -0.5, 0.0], abs=1e-6)


def test_weights_in_another_file_are_refused(artefact: Path) -> None:
    model = onnx.load(artefact / "policy.onnx")
    onnx.save(model, artefact / "policy.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    write_manifest(artefact)
    for listed in (True, False):
        if not listed:
            hashes = (artefact / "manifest.sha256").read_text().splitlines(keepends=True)
            (artefact / "manifest.sha256").write_text("".join(line for line in hashes if "w.bin" not in line))
        with pytest.raises(IntegrityError, match=r"w\.bin" if listed else "in another file"):
            verify(artefact)


def test_operators_of_another_set_than_stated_are_refused(artefact: Path) -> None:
    model = onnx.load(artefact / "policy.onnx")
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, artefact / "policy.onnx")
    write_manifest(artefact)
    with pytest.raises(IntegrityError, match="operator set 17 alone"):
        verify(artefact)


@pytest.mark.parametrize("name", ["policy.onnx", "manifest.json", "golden.npz"])
def test_a_link_out_of_the_directory_is_refused(artefact: Path, name: str) -> None:
    (artefact / name).rename(artefact.parent / "elsewhere")
    (artefact / name).symlink_to(artefact.parent / "elsewhere")
    with pytest.raises(IntegrityError, match=f"{name} is a link out of"):
        verify(artefact)


def test_a_file_that_nobody_lists_is_not_read(artefact: Path) -> None:
    root = verify(artefact).artefact
    (artefact / "README.md").write_text("notes")
    assert verify(artefact).artefact == root


@pytest.mark.parametrize("task", [-1, 1])
def test_a_task_that_the_artefact_lacks_is_refused(artefact: Path, task: int) -> None:
    with pytest.raises(SpaceError, match=f"tasks 0 to 0; got {task}"):
        ArtefactPolicy(open_artefact(artefact)).act(np.zeros((2, 4), dtype=np.float32), task)


def test_a_newer_schema_is_refused(artefact: Path) -> None:
    edit_manifest(artefact, schema=4)
    with pytest.raises(IntegrityError, match="newer than 3"):
        verify(artefact)


def test_a_manifest_of_another_graph_is_refused(artefact: Path) -> None:
    edit_manifest(artefact, execute=1)
    with pytest.raises(IntegrityError, match="another manifest"):
        verify(artefact)


def test_a_graph_of_other_sizes_is_refused(artefact: Path) -> None:
    golden = dict(np.load(artefact / "golden.npz"))
    np.savez(artefact / "golden.npz", **{**golden, "state": np.repeat(golden["state"], 2, axis=1)[:, :3]})
    edit_manifest(artefact, history=3)
    with pytest.raises(IntegrityError, match="does not fit its manifest"):
        verify(artefact)


def test_an_older_runtime_than_the_graph_needs_is_refused(artefact: Path) -> None:
    edit_manifest(artefact, minimum_onnxruntime="99.0")
    with pytest.raises(IntegrityError, match=r"needs ONNX Runtime 99\.0"):
        verify(artefact)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '{"schema": 1, "colour": "red"}'])
def test_a_file_that_is_no_manifest_is_refused(artefact: Path, text: str) -> None:
    (artefact / "manifest.json").write_text(text)
    write_manifest(artefact)
    with pytest.raises(IntegrityError, match=r"manifest\.json is not a manifest"):
        verify(artefact)


def test_golden_outputs_that_this_machine_does_not_reproduce_are_refused(artefact: Path) -> None:
    golden = dict(np.load(artefact / "golden.npz"))
    golden["chunk"][3, 1, 0] += 2e-5
    np.savez(artefact / "golden.npz", **golden)
    write_manifest(artefact)
    with pytest.raises(IntegrityError, match=r"policy\.onnx differs from golden\.npz by 2e-05"):
        verify(artefact)


def test_golden_arrays_of_the_wrong_shape_are_refused(artefact: Path) -> None:
    golden = dict(np.load(artefact / "golden.npz"))
    np.savez(artefact / "golden.npz", **{**golden, "z": golden["z"][:, :1]})
    write_manifest(artefact)
    with pytest.raises(
        IntegrityError,
        match=r"golden\.npz is not .* \(z should be float32 \(64, 2\); got float32 \(64, 1\)\)",
    ):
        verify(artefact)


def test_pickled_golden_arrays_are_never_loaded(artefact: Path) -> None:
    golden = dict(np.load(artefact / "golden.npz"))
    np.savez(artefact / "golden.npz", **{**golden, "chunk": np.array([{"a": 1}] * 64, dtype=object)})
    write_manifest(artefact)
    with pytest.raises(
        IntegrityError, match=r"golden\.npz is not .* \(chunk should be float32 .* got object"
    ):
        verify(artefact)


def test_an_artefact_that_would_not_verify_is_not_left_behind(tmp_path: Path) -> None:
    manifest = Manifest((TaskEntry.of(SUITE.task("bench/point"), 0),), state_size=4, action_size=3)
    golden = linear_golden(STEER)
    wrong = {**golden, "chunk": -np.asarray(golden["chunk"], dtype=np.float32)}
    with pytest.raises(IntegrityError, match="differs"):
        write_artefact(tmp_path / "a", linear_graph(STEER), manifest, wrong, overwrite=False)
    nan = linear_graph(STEER, bias=float("nan"))
    with pytest.raises(IntegrityError, match="differs"):
        write_artefact(tmp_path / "a", nan, manifest, golden, overwrite=False)
    with pytest.raises(IntegrityError, match="does not fit"):
        write_artefact(tmp_path / "a", linear_graph(STEER[:3]), manifest, golden, overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_unasked(artefact: Path) -> None:
    with pytest.raises(ExistsError):
        linear_artefact(artefact, [SUITE.task("bench/point")], STEER)


def test_a_manifest_reads_back_equal() -> None:
    task = SUITE.task("bench/point", {"fault": "nan", "at": 3})
    manifest = Manifest((TaskEntry.of(task, 0),), state_size=5, action_size=3, chunk=8, execute=4)
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.task("bench/point").protocol_hash == task.protocol_hash
    with pytest.raises(UnknownNameError, match="bench/point"):
        manifest.task("bench/pint")


@pytest.mark.parametrize(
    "changes",
    [{"execute": 9}, {"history": 0}, {"state_size": 3}, {"action_size": 1}, {"tasks": ()}, {"noise": "pink"}],
)
def test_a_manifest_that_contradicts_itself_is_refused(changes: dict) -> None:
    entry = TaskEntry.of(SUITE.task("bench/point"), 0)
    manifest = Manifest((entry,), state_size=4, action_size=3, chunk=8, execute=4)
    with pytest.raises(SpaceError):
        dataclasses.replace(manifest, **changes)
