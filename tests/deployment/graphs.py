"""Small artefacts made without any training: chunk = clip(newest state @ W + z @ V), repeated H times."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from mtrl.deployment import Joint, Manifest, TaskEntry, write_artefact
from mtrl.tasks import Task

from .bench_suite import MARK

Float32 = npt.NDArray[np.float32]

STEER = np.array([[-10, 0, 0], [0, -10, 0], [10, 0, 0], [0, 10, 0]], dtype=np.float32)
"""For the bench's point: velocity = 10 (goal - position); the third action is padding."""


def faulty_nodes(fault: str) -> tuple[list[onnx.NodeProto], dict[str, npt.NDArray[np.generic]]]:
    """Nodes and constants of `bias`: 0, and a fault ("raise", "hang" or "nan") where the state is marked."""
    nodes = [
        helper.make_node("ReduceMax", ["state"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "mark"], ["marked"]),
        helper.make_node("Cast", ["marked"], ["count"], to=TensorProto.INT64),
    ]
    constants: dict[str, npt.NDArray[np.generic]] = {
        "mark": np.array(MARK, dtype=np.float32),
        "zeros": np.zeros(1, dtype=np.float32),
        "nan": np.array(np.nan, dtype=np.float32),
        "zero": np.array(0, dtype=np.float32),
        "many": np.array(2**62),
        "yes": np.array(True),
    }
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Sin", ["carried"], ["passed"]),
        ],
        "body",
        [
            value("turn", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("carried", TensorProto.FLOAT, []),
        ],
        [value("go_on", TensorProto.BOOL, []), value("passed", TensorProto.FLOAT, [])],
    )
    # an index beyond the only entry, a loop of years, or no number
    nodes += {
        "raise": [helper.make_node("Gather", ["zeros", "count"], ["bias"])],
        "hang": [
            helper.make_node("Mul", ["count", "many"], ["turns"]),
            helper.make_node("Loop", ["turns", "yes", "zero"], ["bias"], body=body),
        ],
        "nan": [helper.make_node("Where", ["marked", "nan", "zero"], ["bias"])],
    }[fault]
    used = {name for node in nodes for name in node.input}
    return nodes, {name: constant for name, constant in constants.items() if name in used}


def linear_graph(
    weights: Float32,
    history: int = 1,
    chunk: int = 1,
    noise: Float32 | None = None,
    *,
    bias: float = 0.0,
    fault: str = "",
) -> bytes:
    """The graph; `weights` [D, A], `noise` [Z, A]. `bias` NaN makes a policy that proposes NaN."""
    size, width = weights.shape
    shape = helper.make_tensor_value_info
    inputs = [
        shape("state", TensorProto.FLOAT, ["N", history, size]),
        shape("task", TensorProto.INT64, ["N"]),
    ]
    constants: dict[str, npt.NDArray[np.generic]] = {
        "last": np.array(history - 1),
        "weights": np.tile(weights, (1, chunk)),
        "low": np.array(-1, dtype=np.float32),
        "high": np.array(1, dtype=np.float32),
        "bias": np.array(bias, dtype=np.float32),
        "shape": np.array([-1, chunk, width]),
    }
    nodes = [
        helper.make_node("Gather", ["state", "last"], ["newest"], axis=1),
        helper.make_node("MatMul", ["newest", "weights"], ["product"]),
    ]
    if fault:
        faulty, needed = faulty_nodes(fault)
        nodes += faulty
        del constants["bias"]
        constants |= needed
    total = "product"
    if noise is not None:
        inputs.append(shape("z", TensorProto.FLOAT, ["N", len(noise)]))
        constants["noise"] = np.tile(noise, (1, chunk))
        nodes += [
            helper.make_node("MatMul", ["z", "noise"], ["drawn"]),
            helper.make_node("Add", ["product", "drawn"], ["noisy"]),
        ]
        total = "noisy"
    nodes += [
        helper.make_node("Clip", [total, "low", "high"], ["clipped"]),
        helper.make_node("Add", ["clipped", "bias"], ["biased"]),
        helper.make_node("Reshape", ["biased", "shape"], ["chunk"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        inputs,
        [shape("chunk", TensorProto.FLOAT, ["N", chunk, width])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    serialised: bytes = model.SerializeToString()
    return serialised


def linear_golden(
    weights: Float32, history: int = 1, chunk: int = 1, noise: Float32 | None = None, tasks: int = 1
) -> Mapping[str, npt.NDArray[np.generic]]:
    """64 inputs and what the formula says, by numpy in float32."""
    generator = np.random.default_rng(0)
    state = generator.standard_normal((64, history, len(weights)), dtype=np.float32)
    golden: dict[str, npt.NDArray[np.generic]] = {"state": state, "task": np.arange(64) % tasks}
    total = state[:, -1] @ weights
    if noise is not None:
        z = generator.standard_normal((64, len(noise)), dtype=np.float32)
        golden["z"] = z
        total = total + z @ noise
    golden["chunk"] = np.repeat(np.clip(total, -1, 1)[:, None], chunk, axis=1)
    return golden


def linear_artefact(
    directory: Path,
    tasks: list[Task],
    weights: Float32,
    history: int = 1,
    chunk: int = 4,
    execute: int = 2,
    noise: Float32 | None = None,
    drawn: str = "chunk",
    fault: str = "",
) -> str:
    """Writes an artefact of a linear policy for these tasks; returns its id."""
    entries = tuple(TaskEntry.of(task, index) for index, task in enumerate(tasks))
    return write_linear(directory, entries, weights, history, chunk, execute, noise, drawn, fault)


def write_linear(
    directory: Path,
    entries: tuple[TaskEntry, ...],
    weights: Float32,
    history: int = 1,
    chunk: int = 4,
    execute: int = 2,
    noise: Float32 | None = None,
    drawn: str = "chunk",
    fault: str = "",
    joints: tuple[Joint, ...] = (),
) -> str:
    """As `linear_artefact`, for entries of tasks that need not be installed."""
    manifest = Manifest(
        tasks=entries,
        state_size=weights.shape[0],
        action_size=weights.shape[1],
        history=history,
        chunk=chunk,
        execute=execute,
        noise_size=0 if noise is None else len(noise),
        noise=drawn,
        joints=joints,
    )
    graph = linear_graph(weights, history, chunk, noise, fault=fault)
    golden = linear_golden(weights, history, chunk, noise, len(entries))
    return write_artefact(directory, graph, manifest, golden, overwrite=False)
