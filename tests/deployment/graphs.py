"""Small artefacts made without any training: chunk = clip(newest state @ W + z @ V), repeated H times."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from mtrl.deployment import Manifest, TaskEntry, write_artefact
from mtrl.tasks import Task

Float32 = npt.NDArray[np.float32]

STEER = np.array([[-10, 0, 0], [0, -10, 0], [10, 0, 0], [0, 10, 0]], dtype=np.float32)
"""For the bench's point: velocity = 10 (goal - position); the third action is padding."""


def linear_graph(
    weights: Float32, history: int = 1, chunk: int = 1, noise: Float32 | None = None, *, bias: float = 0.0
) -> bytes:
    """The graph; `weights` [D, A], `noise` [Z, A]. `bias` NaN makes a policy that proposes NaN."""
    size, width = weights.shape
    shape = helper.make_tensor_value_info
    inputs = [
        shape("state", TensorProto.FLOAT, ["N", history, size]),
        shape("task", TensorProto.INT64, ["N"]),
    ]
    constants = {
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
) -> str:
    """Writes an artefact of a linear policy for these tasks; returns its id."""
    manifest = Manifest(
        tasks=tuple(TaskEntry.of(task, index) for index, task in enumerate(tasks)),
        state_size=weights.shape[0],
        action_size=weights.shape[1],
        history=history,
        chunk=chunk,
        execute=execute,
        noise_size=0 if noise is None else len(noise),
        noise=drawn,
    )
    graph = linear_graph(weights, history, chunk, noise)
    golden = linear_golden(weights, history, chunk, noise, len(tasks))
    return write_artefact(directory, graph, manifest, golden, overwrite=False)
