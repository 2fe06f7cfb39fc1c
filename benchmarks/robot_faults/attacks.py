"""Files that ask for unbounded work, each small on the disk: what benchmarks/hostile.py opens.

`ATTACKS` maps a name to a function that writes the files below a folder and returns the command that reads
them. Every hash in them is right.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mtrl import registry
from mtrl.data import Trajectories, dataset_id_of, write_dataset
from mtrl.deployment import Manifest, TaskEntry, write_artefact
from mtrl.integrity import write_manifest
from mtrl.launch.compose import compose
from mtrl.structured import plain
from mtrl.training import RunDirectory, save_state

TASK = "point/obstacle"
GIGABYTE = 2**30

Words = list[str]


def linear_model(inner: list[onnx.NodeProto] | None = None) -> onnx.ModelProto:
    """chunk = clip(state W) of the point task; `inner` makes "extra", which is added to the actions."""
    task = registry.task(TASK)
    size, width = task.observation.state or 0, task.action.continuous
    weights = np.linspace(-0.5, 0.5, size * width, dtype=np.float32).reshape(size, width)
    constants = {"w": weights, "low": np.float32(-1.0), "high": np.float32(1.0)}
    nodes = [helper.make_node("MatMul", ["state", "w"], ["product"]), *(inner or ())]
    if inner:
        nodes.append(helper.make_node("Add", ["product", "extra"], ["total"]))
    nodes.append(helper.make_node("Clip", ["total" if inner else "product", "low", "high"], ["chunk"]))
    shape = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "linear",
        [shape("state", TensorProto.FLOAT, ["N", 1, size]), shape("task", TensorProto.INT64, ["N"])],
        [shape("chunk", TensorProto.FLOAT, ["N", 1, width])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def golden_of(rows: int) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs of the linear model, and its outputs."""
    task = registry.task(TASK)
    size, width = task.observation.state or 0, task.action.continuous
    weights = np.linspace(-0.5, 0.5, size * width, dtype=np.float32).reshape(size, width)
    state = np.random.default_rng(0).standard_normal((rows, 1, size), dtype=np.float32)
    chunk = np.clip(state @ weights, -1, 1)
    return {"state": state, "task": np.zeros(rows, dtype=np.int64), "chunk": chunk}


def manifest_of() -> Manifest:
    """The manifest of the linear model."""
    task = registry.task(TASK)
    return Manifest((TaskEntry.of(task, 0),), task.observation.state or 0, task.action.continuous)


def sound_artefact(place: Path) -> Path:
    """An artefact that verifies."""
    write_artefact(place, linear_model().SerializeToString(), manifest_of(), golden_of(64))
    return place


def sealed_graph(place: Path, model: onnx.ModelProto) -> Path:
    """A sound artefact with another graph, which names the manifest as an export does."""
    sound_artefact(place)
    helper.set_model_props(model, {"mtrl.manifest": (place / "manifest.json").read_text()})
    (place / "policy.onnx").write_bytes(model.SerializeToString())
    write_manifest(place)
    return place


def sound_run(place: Path) -> RunDirectory:
    """A run of the point task with nothing in it."""
    return RunDirectory.create(place, config=plain(compose([f"tasks=[{TASK}]", "agent=sac"])))


def golden_bomb(place: Path) -> Words:
    """4 MB of golden.npz that inflate to 4 GiB."""
    artefact = sound_artefact(place / "artefact")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (GIGABYTE, 1, 1)}
    )
    block = bytes(2**24)
    with (
        zipfile.ZipFile(artefact / "golden.npz", "a", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("z.npy", "w", force_zip64=True) as member,
    ):
        member.write(header.getvalue())
        for _ in range(4 * GIGABYTE // len(block)):
            member.write(block)
    write_manifest(artefact)
    return ["evaluate", str(artefact)]


def golden_rows(place: Path) -> Words:
    """A golden.npz of 1,000,000 rows, all of them right."""
    artefact = sound_artefact(place / "artefact")
    np.savez_compressed(artefact / "golden.npz", **golden_of(1_000_000))  # type: ignore[arg-type]
    write_manifest(artefact)
    return ["evaluate", str(artefact)]


def golden_members(place: Path) -> Words:
    """A golden.npz whose directory lists 100,000 members."""
    artefact = sound_artefact(place / "artefact")
    with zipfile.ZipFile(artefact / "golden.npz", "a") as archive:
        for number in range(100_000):
            archive.writestr(f"{number}.npy", b"")
    write_manifest(artefact)
    return ["evaluate", str(artefact)]


def _loop() -> list[onnx.NodeProto]:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes"]),
            helper.make_node("Add", ["kept", "one"], ["keeps"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("kept", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("keeps", TensorProto.FLOAT, []),
        ],
        [numpy_helper.from_array(np.float32(0.0), "one")],
    )
    return [
        helper.make_node("Constant", [], ["turns"], value=numpy_helper.from_array(np.int64(2**62))),
        helper.make_node("Constant", [], ["true"], value=numpy_helper.from_array(np.bool_(True))),
        helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.float32(0.0))),
        helper.make_node("Loop", ["turns", "true", "zero"], ["extra"], body=body),
    ]


def graph_loop(place: Path) -> Words:
    """A graph that loops 2^62 times."""
    return ["evaluate", str(sealed_graph(place / "artefact", linear_model(_loop())))]


def graph_memory(place: Path) -> Words:
    """A graph that makes a tensor of 64 GiB."""
    shape = numpy_helper.from_array(np.array([2**34], dtype=np.int64))
    inner = [
        helper.make_node("Constant", [], ["shape"], value=shape),
        helper.make_node("ConstantOfShape", ["shape"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["extra"], keepdims=0),
    ]
    return ["deploy", str(sealed_graph(place / "artefact", linear_model(inner)))]


def manifest_blanks(place: Path) -> Words:
    """300 MB of blanks in manifest.json."""
    artefact = sound_artefact(place / "artefact")
    with (artefact / "manifest.json").open("ab") as file:
        for _ in range(300):
            file.write(b" " * 10**6)
    write_manifest(artefact)
    return ["evaluate", str(artefact)]


def configuration_of(place: Path, text: str) -> Words:
    """A run whose config.yaml is `text`."""
    run = sound_run(place / "run")
    mark = run.config_file.read_text().partition("\n")[0]
    run.config_file.write_text(f"{mark}\n{text}")
    return ["evaluate", str(run.path)]


def alias_bomb(place: Path) -> Words:
    """A configuration of 9 ^ 20 values by aliases."""
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    return configuration_of(place, "\n".join(lines))


def nested_yaml(place: Path) -> Words:
    """A configuration that nests 400,000 deep."""
    return configuration_of(place, "a: " + "[" * 400_000)


def sexagesimal(place: Path) -> Words:
    """A number of YAML in base 60 with 400,000 digits."""
    return configuration_of(place, "seed: 1" + ":59" * 300_000)


def _state(place: Path, tree: str) -> Words:
    run = sound_run(place / "run")
    kept = run.policies / "teacher"
    kept.parent.mkdir()
    save_state(kept, {"kind": "sac"})
    (kept / "state.json").write_text(f'{{"format": "mtrl-state", "version": 1, "tree": {tree}}}')
    write_manifest(kept)
    return ["evaluate", str(run.path)]


def wide_strings(place: Path) -> Words:
    """Ten strings of 400 MB each."""
    return _state(place, json.dumps({"strings": ["a"] * 10, "dtype": "<U100000000", "shape": [10]}))


def void_scalar(place: Path) -> Words:
    """A scalar of 10 GB."""
    return _state(place, '{"scalar": 10000000000, "dtype": "|V8"}')


def state_blanks(place: Path) -> Words:
    """300 MB of blanks in state.json."""
    words = _state(place, '{"dict": {}}')
    kept = Path(words[1]) / "policies" / "teacher"
    with (kept / "state.json").open("ab") as file:
        for _ in range(300):
            file.write(b" " * 10**6)
    write_manifest(kept)
    return words


def many_values(place: Path) -> Words:
    """30 MB of state.json that become ten million lists."""
    return _state(place, "[" + "[]," * 10_000_000 + "[]]")


def tensor_header(place: Path) -> Words:
    """A list of 600,000 tensors of no elements."""
    words = _state(place, '{"dict": {}}')
    kept = Path(words[1]) / "policies" / "teacher"
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"tensor{number}": entry for number in range(600_000)}).encode()
    (kept / "state.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    write_manifest(kept)
    return words


def dataset_of(place: Path) -> Path:
    """Folder of a sound dataset of the point task."""
    task = registry.task(TASK)
    steps, width, size = 6, task.action.continuous, task.observation.state or 0
    draws = np.random.default_rng(0)
    actions = draws.uniform(-1, 1, (steps, width)).astype(np.float32)
    ends = np.arange(steps) == steps - 1
    trajectories = Trajectories(
        observations={"state": draws.standard_normal((steps + 1, size), dtype=np.float32)},
        actions=actions,
        labels=actions,
        rewards=np.zeros(steps, dtype=np.float32),
        terminated=np.zeros(steps, dtype=np.bool_),
        truncated=ends,
        success=ends,
        offsets=np.array([0, steps]),
        start_id=np.array([0]),
    )
    write_dataset(place, dataset_id_of(task), task, trajectories, {})
    return place / dataset_id_of(task)


def fill_values(place: Path) -> Words:
    """A dataset whose actions are 16 GiB of a fill value."""
    dataset = dataset_of(place / "datasets")
    with h5py.File(dataset / "data" / "main_data.hdf5", "a") as file:
        episode = file["episode_0"]
        rows = 2 * GIGABYTE
        for name in (
            "actions",
            "infos/expert_action",
            "rewards",
            "terminations",
            "truncations",
            "infos/success",
        ):
            old = episode[name]
            row, kind = old.shape[1:], old.dtype
            del episode[name]
            episode.create_dataset(name, (rows, *row), kind, chunks=(2**20, *row), fillvalue=0)
        width = episode["observations"].shape[1]
        del episode["observations"]
        episode.create_dataset("observations", (rows + 1, width), "<f4", chunks=(2**20, width))
    write_manifest(dataset)
    return _train_on(place, dataset)


def compressed_rows(place: Path) -> Words:
    """A dataset whose actions are 1 GB of zeros, compressed to 1 MB."""
    dataset = dataset_of(place / "datasets")
    with h5py.File(dataset / "data" / "main_data.hdf5", "a") as file:
        episode = file["episode_0"]
        del episode["actions"]
        made = episode.create_dataset(
            "actions", (2**27, 2), "<f4", chunks=(2**20, 2), compression="gzip", compression_opts=9
        )
        block = np.zeros((2**20, 2), dtype=np.float32)
        for start in range(0, 2**27, 2**20):
            made[start : start + 2**20] = block
    write_manifest(dataset)
    return _train_on(place, dataset)


def _train_on(place: Path, dataset: Path) -> Words:
    root = dataset.parents[dataset_id_of(registry.task(TASK)).count("/")]
    words = [f"tasks=[{TASK}]", "agent=diffusion", f"data={root}", f"output={place / 'runs'}", "name=made"]
    return ["train", *words, "stages=[train]"]


ATTACKS: Mapping[str, Callable[[Path], Words]] = {
    function.__name__: function
    for function in (
        golden_bomb, golden_rows, golden_members, graph_loop, graph_memory, manifest_blanks,
        alias_bomb, nested_yaml, sexagesimal, wide_strings, void_scalar, state_blanks, many_values,
        tensor_header, fill_values, compressed_rows,
    )
}  # fmt: skip
"""Name -> what writes the files and returns the command's words."""
