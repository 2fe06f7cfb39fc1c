"""The process in which an artefact's graph is loaded for the first time, with little memory and time.

It is run by its path, imports numpy, onnx and ONNX Runtime alone, and is killed by its own limits: a graph
may loop for ever or ask for any memory, while it is loaded already. Standard input holds the graph and the
golden arrays as `numpy.savez` writes them, with the limits; standard output is one JSON object.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


def main() -> None:
    """Answers {"refused": reason} or what `examine` returns."""
    with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    graph, opset, seconds, room = (arrays.pop(name) for name in ("graph", "opset", "seconds", "bytes"))
    # imported before the limits, which are the graph's alone
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401

    _limit(float(seconds), int(room))
    try:
        answer = examine(graph.tobytes(), int(opset), arrays)
    except Exception as error:  # noqa: BLE001 - the runtime raises a dozen unrelated classes
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        answer = {"refused": f"{kind}{error}"[:1000]}
    json.dump(answer, sys.stdout)


def examine(graph: bytes, opset: int, golden: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """Metadata of a graph, and its largest difference to the golden `chunk`, None when one is not finite.

    Raises ValueError for other operators than ONNX's own of set `opset`, a tensor in another file, and inputs
    and outputs that are not those of the golden arrays.
    """
    _require_contents(graph, opset)
    session = open_session(graph)
    feeds = {name: array for name, array in golden.items() if name != "chunk"}
    require_signature(session, feeds, golden["chunk"])
    return {
        "metadata": session.get_modelmeta().custom_metadata_map,
        "difference": _difference(session, feeds, golden["chunk"]),
    }


def open_session(graph: bytes) -> Any:  # noqa: ANN401 - onnxruntime is untyped
    """ONNX Runtime on one thread that never spins: a spinning worker occupies a core."""
    # Imported here: listing robots and writing manifests must not load the runtime.
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    return ort.InferenceSession(graph, sess_options=options, providers=["CPUExecutionProvider"])


def require_signature(
    session: Any,  # noqa: ANN401 - onnxruntime is untyped
    inputs: Mapping[str, np.ndarray[Any, Any]],
    chunk: np.ndarray[Any, Any],
) -> None:
    """Raises ValueError unless the graph takes arrays like `inputs` and gives one like `chunk`.

    The first axis is not looked at, and a symbolic size fits any.
    """
    types = {"float32": "tensor(float)", "int64": "tensor(int64)", "uint8": "tensor(uint8)"}
    sides = {"input": (session.get_inputs(), inputs), "output": (session.get_outputs(), {"chunk": chunk})}
    for side, (nodes, arrays) in sides.items():
        found = {node.name: [node.type, *node.shape[1:]] for node in nodes}
        expected = {name: [types[array.dtype.name], *array.shape[1:]] for name, array in arrays.items()}
        if found.keys() != expected.keys() or not all(_fits(found[name], expected[name]) for name in found):
            raise ValueError(
                f"it does not fit its manifest: type and shape without the first axis of each {side} "
                f"should be {expected}; got {found}"
            )


def _fits(found: list[Any], expected: list[Any]) -> bool:
    (kind, *sizes), (needed_kind, *needed) = found, expected
    return (kind, len(sizes)) == (needed_kind, len(needed)) and all(
        isinstance(size, str) or size == need for size, need in zip(sizes, needed, strict=True)
    )


def _difference(
    session: Any,  # noqa: ANN401 - onnxruntime is untyped
    feeds: Mapping[str, np.ndarray[Any, Any]],
    chunk: np.ndarray[Any, Any],
) -> float | None:
    """Row by row, as a controller runs."""
    worst = 0.0
    for row in range(len(chunk)):
        one = slice(row, row + 1)
        (found,) = session.run(["chunk"], {name: array[one] for name, array in feeds.items()})
        if found.shape != chunk[one].shape:
            raise ValueError(f"the output has shape {found.shape}; expected {chunk[one].shape}")
        error = float(np.abs(found - chunk[one]).max())
        if not np.isfinite(error):
            return None
        worst = max(worst, error)
    return worst


def _require_contents(graph: bytes, opset: int) -> None:
    import onnx

    model = onnx.load_from_string(graph)
    operators = [[item.domain, item.version] for item in model.opset_import]
    if operators != [["", opset]]:
        raise ValueError(
            f"it should use ONNX's own operator set {opset} alone, as its manifest says; got {operators}"
        )
    for message in _messages(model):
        if isinstance(message, onnx.TensorProto) and (message.data_location or message.external_data):
            raise ValueError(f"the tensor {message.name!r} lies in another file, which no hash covers")


def _messages(message: Any) -> Iterator[Any]:  # noqa: ANN401 - generated classes
    """A protocol buffer and all that it contains, however deep."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in (value,) if hasattr(value, "ListFields") else value:
                yield from _messages(inner)


def _limit(seconds: float, room: int) -> None:
    """Processor time and memory from here on; the kernel ends the process that exceeds the first."""
    # the default action ends the process even inside the runtime's own code
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            taken = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:  # no Linux
        return
    resource.setrlimit(resource.RLIMIT_AS, (taken + room, taken + room))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
