"""Demonstrations as one LeRobot dataset (format v3.0) of several tasks, that LeRobot itself can load.

Written with pyarrow alone: parquet files of frames and of episodes, JSON beside them. State vectors and
continuous actions only. A frame has, besides LeRobot's own columns,

    observation.state, action (executed), expert_action (the clean label),
    next.reward, next.done, next.terminated, next.truncated, next.success

and the row of an episode the state after its last action (`final.observation.state`) and the start it
began from (`start_id`), so that every bit returns. `meta/mtrl.json` holds each task's protocol hash and how
its data came to be.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtrl.atomic import atomic_directory
from mtrl.errors import SpaceError, UnsupportedError
from mtrl.tasks import Task

from .trajectories import Trajectories

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = "v3.0"
FILE_BYTES = 100 * 2**20
"""A file of frames ends with the episode that takes it beyond."""
FILES_PER_CHUNK = 1000
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
EPISODES = Path("meta", "episodes", "chunk-000", "file-000.parquet")
TASKS, INFO, STATS, OWN = (
    Path("meta", name) for name in ("tasks.parquet", "info.json", "stats.json", "mtrl.json")
)
FINAL = "final.observation.state"
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}

VECTORS = ("observation.state", "action", "expert_action")
FLAGS = {
    "next.done": None,
    "next.terminated": "terminated",
    "next.truncated": "truncated",
    "next.success": "success",
}
"""Column -> the field of `Trajectories` that it holds; an episode is done at its last frame."""


def write_lerobot(
    place: Path,
    demonstrations: Sequence[tuple[Task, Trajectories]],
    provenance: Mapping[str, Any],
    overwrite: bool = False,
) -> None:
    """Writes the dataset whole or not at all.

    Raises UnsupportedError for pixels and discrete actions, SpaceError for tasks of unequal sizes or rates,
    ExistsError when `place` is there and `overwrite` is False, ResourceError when the disk is full.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    _require_one_form([task for task, _ in demonstrations])
    first, rows, frames = demonstrations[0][0], list[dict[str, Any]](), 0
    with atomic_directory(place, overwrite) as partial:
        writer, file_index, size = None, 0, 0
        for index, (task, data) in enumerate(demonstrations):
            for e in range(data.episode_count):
                table = _frames(first.rate_hz, index, len(rows), frames, data, e)
                if writer is None:
                    file = partial / _data_file(file_index)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    writer, size = pq.ParquetWriter(file, table.schema), 0
                writer.write_table(table)
                rows.append(_episode(task, data, e, table, len(rows), frames, file_index))
                frames, size = frames + table.num_rows, size + table.nbytes
                if size > FILE_BYTES:
                    writer.close()
                    writer, file_index = None, file_index + 1
        if writer is not None:
            writer.close()
        (partial / EPISODES).parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), partial / EPISODES)
        pq.write_table(_tasks([task.name for task, _ in demonstrations]), partial / TASKS)
        info = _info(first, demonstrations, len(rows), frames)
        own = {
            "tasks": {task.name: task.protocol_hash for task, _ in demonstrations},
            "provenance": dict(provenance),
        }
        for name, content in ((INFO, info), (STATS, _stats(demonstrations)), (OWN, own)):
            (partial / name).write_text(json.dumps(content, indent=1, allow_nan=False))


def features_of(state: int, action: int) -> dict[str, dict[str, Any]]:
    """LeRobot's description of every column."""
    found: dict[str, dict[str, Any]] = {
        "observation.state": {"dtype": "float32", "shape": [state], "names": None},
        "action": {"dtype": "float32", "shape": [action], "names": None},
        "expert_action": {"dtype": "float32", "shape": [action], "names": None},
    }
    kinds = {"next.reward": "float32", **dict.fromkeys(FLAGS, "bool"), "timestamp": "float32"}
    kinds |= dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64")
    return found | {name: {"dtype": kind, "shape": [1], "names": None} for name, kind in kinds.items()}


def _require_one_form(tasks: Sequence[Task]) -> None:
    """Requires state vectors, continuous actions, and the sizes and rate of the first task."""
    for task in tasks:
        if task.observation.state is None or task.observation.pixels is not None or task.action.is_discrete:
            raise UnsupportedError(
                f"LeRobot datasets are written of state vectors and continuous actions; {task.name} observes "
                f"{list(task.observation.buckets)} and acts {'by index' if task.action.is_discrete else 'so'}"
            )
        forms = [(t.observation.state, t.action.continuous, t.rate_hz) for t in (task, tasks[0])]
        if forms[0] != forms[1]:
            raise SpaceError(
                f"a LeRobot dataset has one form of frame; (state, action, Hz) is {forms[0]} of {task.name} "
                f"and {forms[1]} of {tasks[0].name}. Convert them into a dataset each"
            )


def _data_file(index: int) -> str:
    return DATA_PATH.format(chunk_index=index // FILES_PER_CHUNK, file_index=index % FILES_PER_CHUNK)


def _arrays(data: Trajectories, e: int) -> dict[str, npt.NDArray[Any]]:
    """Columns of one episode that its task knows, each with a row per decision."""
    steps = slice(data.offsets[e], data.offsets[e + 1])
    states = data.observations["state"][steps.start + e : steps.stop + e]
    found = {
        "observation.state": states,
        "action": data.actions[steps],
        "expert_action": data.labels[steps],
        "next.reward": data.rewards[steps],
    }
    last = np.arange(steps.stop - steps.start) == steps.stop - steps.start - 1
    flags = {name: last if field is None else getattr(data, field)[steps] for name, field in FLAGS.items()}
    return found | flags


def _frames(rate: float, task: int, episode: int, first: int, data: Trajectories, e: int) -> pa.Table:
    """One episode's rows, which become one row group."""
    import pyarrow as pa

    arrays = _arrays(data, e)
    count = len(arrays["next.reward"])
    columns = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(values)), values.shape[1])
        if name in VECTORS
        else pa.array(values)
        for name, values in arrays.items()
    }
    step = np.arange(count, dtype=np.int64)
    columns |= {
        "timestamp": pa.array((step / rate).astype(np.float32)),
        "frame_index": pa.array(step),
        "episode_index": pa.array(np.full(count, episode)),
        "index": pa.array(first + step),
        "task_index": pa.array(np.full(count, task)),
    }
    return pa.table(columns)


def _episode(
    task: Task, data: Trajectories, e: int, table: pa.Table, episode: int, first: int, file_index: int
) -> dict[str, Any]:
    """The row of one episode in `meta/episodes`."""
    stats = {
        f"stats/{name}/{what}": value
        for name, found in _statistics(_arrays(data, e)).items()
        for what, value in found.items()
    }
    return {
        "episode_index": episode,
        "tasks": [task.name],
        "length": table.num_rows,
        "data/chunk_index": file_index // FILES_PER_CHUNK,
        "data/file_index": file_index % FILES_PER_CHUNK,
        "dataset_from_index": first,
        "dataset_to_index": first + table.num_rows,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
        "start_id": int(data.start_id[e]),
        FINAL: data.observations["state"][data.offsets[e + 1] + e].tolist(),
        **stats,
    }


def _tasks(names: Sequence[str]) -> pa.Table:
    """The table of tasks as pandas writes it, with the name as index: LeRobot looks names up there."""
    import pyarrow as pa

    kinds = {"task_index": "int64", "task": "unicode"}
    described = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {
                "name": name,
                "field_name": name,
                "pandas_type": kind,
                "numpy_type": "object" if kind == "unicode" else kind,
                "metadata": None,
            }
            for name, kind in kinds.items()
        ],
    }
    table = pa.table({"task_index": np.arange(len(names)), "task": list(names)})
    return table.replace_schema_metadata({"pandas": json.dumps(described)})


def _info(
    task: Task, demonstrations: Sequence[tuple[Task, Trajectories]], episodes: int, frames: int
) -> dict[str, Any]:
    state, action = task.observation.state, task.action.continuous
    assert state is not None
    return {
        "codebase_version": VERSION,
        "robot_type": None,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": len(demonstrations),
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": FILE_BYTES // 2**20,
        "video_files_size_in_mb": 200,
        "fps": int(task.rate_hz) if task.rate_hz.is_integer() else task.rate_hz,
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA_PATH,
        "video_path": None,
        "features": features_of(state, action),
    }


def _stats(demonstrations: Sequence[tuple[Task, Trajectories]]) -> dict[str, dict[str, list[float]]]:
    """Statistics of all frames."""

    def episodes() -> Iterator[dict[str, npt.NDArray[Any]]]:
        for _, data in demonstrations:
            for e in range(data.episode_count):
                yield _arrays(data, e)

    parts = list(episodes())
    return _statistics({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def _statistics(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, dict[str, list[float]]]:
    """Column -> statistic -> its value of every entry, of the columns of numbers."""
    found: dict[str, dict[str, list[float]]] = {}
    for name in (*VECTORS, "next.reward"):
        values = arrays[name].reshape(len(arrays[name]), -1).astype(np.float64)
        lines = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
        lines |= {key: np.quantile(values, share, axis=0) for key, share in QUANTILES.items()}
        found[name] = {key: line.tolist() for key, line in lines.items()} | {"count": [len(values)]}
    return found
