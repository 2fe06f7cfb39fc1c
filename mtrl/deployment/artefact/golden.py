"""The golden inputs and outputs of an artefact, and the proof that its graph computes them here."""

from __future__ import annotations

import io
import math
import signal
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.reading import MEGABYTE, parse_json, reading
from mtrl.rollout import child_environment

from . import graph_process
from .contents import BYTES, GOLDEN_FILE, POLICY_FILE, Artefact

Golden = dict[str, npt.NDArray[Any]]
Float32 = npt.NDArray[np.float32]
Uint8 = npt.NDArray[np.uint8]
GoldenInput = tuple[Float32, int, Float32 | None, Uint8 | None]

ROWS = 10_000
"""Most golden rows."""
SECONDS = 0.5
"""Processor time to load a small graph and to run its golden rows."""
BYTES_PER_SECOND = 1e9
"""Weights that one thread multiplies in a second, with a wide margin; a larger graph has longer."""
IMAGE_WORK = 1000
"""Bytes of weights that convolutions of a number of an image count as."""
ROOM = 128 * MEGABYTE
"""Memory for a small graph; a larger one has `COPIES` times its size more."""
COPIES = 8
PATIENCE_S = 120.0
"""Wall-clock limit on a machine that gives the process little time."""


def read_golden(artefact: Artefact) -> Golden:
    """The golden arrays, each checked against the manifest before it is inflated.

    `state` float32 [M, h, D_max] (when D_max > 0), `pixels` uint8 [M, C, H, W] (when the policy sees them),
    `task` int64 [M], `z` float32 [M, Z] (when Z > 0), `chunk` float32 [M, H, A_max]. Raises IntegrityError.
    """
    sizes = artefact.manifest
    rows: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
        "task": (np.int64, ()),
        "chunk": (np.float32, (sizes.chunk, sizes.action_size)),
    }
    if sizes.state_size:
        rows["state"] = (np.float32, (sizes.history, sizes.state_size))
    if sizes.pixels:
        rows["pixels"] = (np.uint8, sizes.pixels)
    if sizes.noise_size:
        rows["z"] = (np.float32, (sizes.noise_size,))
    path, content = artefact.directory / GOLDEN_FILE, artefact.golden
    with reading(path, "golden arrays of this artefact", "export the artefact again"):
        # a directory of a million entries would be read before one could count them
        if content.count(b"PK\x01\x02") > 2 * len(rows) + 8:
            raise ValueError("it has too many members")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found = sorted(archive.namelist())
            if found != sorted(f"{name}.npy" for name in rows):
                raise ValueError(f"it should hold {', '.join(sorted(rows))}; it holds {found[:8]}")
            count = _count(archive)
            golden = {
                name: _array(archive, name, dtype, (count, *row)) for name, (dtype, row) in rows.items()
            }
        if not ((golden["task"] >= 0) & (golden["task"] < len(sizes.tasks))).all():
            raise ValueError(f"a task is not one of the {len(sizes.tasks)} of the manifest")
        for name, values in golden.items():
            if not np.isfinite(values).all():
                raise ValueError(f"{name} holds numbers that are not finite")
        if not (np.abs(golden["chunk"]) <= 1.0).all():
            raise ValueError("chunk lies from -1 to 1")
    return golden


def golden_inputs(golden: Mapping[str, npt.NDArray[Any]]) -> list[GoldenInput]:
    """Row by row the arguments of `ArtefactPolicy.act`: state [h, D_max], task index, z [Z] or None, and
    pixels [C, H, W] or None.
    """
    noise, images, count = golden.get("z"), golden.get("pixels"), len(golden["task"])
    states = golden.get("state", np.zeros((count, 1, 0), dtype=np.float32))
    return [
        (
            state,
            int(task),
            None if noise is None else noise[row],
            None if images is None else images[row],
        )
        for row, (state, task) in enumerate(zip(states, golden["task"], strict=True))
    ]


def examine(artefact: Artefact, golden: Golden) -> dict[str, Any]:
    """What `graph_process.examine` finds, in a process with limits of time and memory.

    Raises IntegrityError for a graph that it refuses, that does not load or run, or that exceeds the limits.
    """
    path, size = artefact.directory / POLICY_FILE, len(artefact.graph)
    work = size + IMAGE_WORK * math.prod(artefact.manifest.pixels or (0,))
    seconds = SECONDS + work * len(golden["task"]) / BYTES_PER_SECOND
    sent = io.BytesIO()
    np.savez(
        sent,
        graph=np.frombuffer(artefact.graph, dtype=np.uint8),
        opset=np.array(artefact.manifest.opset),
        seconds=np.array(seconds),
        bytes=np.array(ROOM + COPIES * size),
        **golden,  # type: ignore[arg-type]
    )
    with reading(path, "a graph of this artefact", "export the artefact again"):
        done = subprocess.run(
            [sys.executable, "-P", str(Path(graph_process.__file__))],
            input=sent.getbuffer(),
            capture_output=True,
            check=False,
            timeout=PATIENCE_S,
            env=child_environment(),
            cwd="/",
        )
        if done.returncode == -signal.SIGPROF:
            raise ValueError(f"it ran for more than {seconds:.2f} s of processor time")
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()
            raise ValueError(f"the process that loaded it ended with status {done.returncode}: {said[-200:]}")
        answer = parse_json(done.stdout)
        assert isinstance(answer, dict), "the process answers with an object"
        if "refused" in answer:
            raise ValueError(answer["refused"])
    return answer


def _count(archive: zipfile.ZipFile) -> int:
    """Rows of `chunk`, which those of the other arrays have to be."""
    with archive.open("chunk.npy") as member:
        shape, _, _ = _header(member)
    if not shape or not 1 <= shape[0] <= ROWS:
        raise ValueError(f"chunk has shape {shape}; expected 1 to {ROWS:,} rows")
    return int(shape[0])


def _array(
    archive: zipfile.ZipFile, name: str, dtype: type[np.generic], shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    expected = np.dtype(dtype)
    size = int(np.prod(shape, dtype=object)) * expected.itemsize
    if size > BYTES[GOLDEN_FILE]:
        raise ValueError(f"{name} has {size:,} bytes; expected at most {BYTES[GOLDEN_FILE]:,}")
    with archive.open(f"{name}.npy") as member:
        found, column_major, kind = _header(member)
        if (found, kind) != (shape, expected) or (column_major and len(shape) > 1):
            raise ValueError(f"{name} should be {expected} {shape}; got {kind} {found}")
        content = member.read(size + 1)
    if len(content) != size:
        raise ValueError(f"{name} should have {size:,} bytes; got {len(content):,} or more")
    return np.frombuffer(content, dtype=expected).reshape(shape)


def _header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:  # noqa: ANN401 - a file in an archive
    """Shape, order and type; NumPy's own readers refuse headers of more than 10,000 characters."""
    if np.lib.format.read_magic(member) != (1, 0):
        raise ValueError("an array has an unknown version")
    header: tuple[tuple[int, ...], bool, np.dtype[Any]] = np.lib.format.read_array_header_1_0(member)
    return header
