"""Reading LeRobot datasets (format v3.0) that anybody may have written, as demonstrations of our tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError, IntegrityError, SpaceError
from mtrl.evaluation.records import Record
from mtrl.reading import MEGABYTE, parse_json, read_bytes, reading, require_size
from mtrl.tasks import Task

from .lerobot import DATA_PATH, EPISODES, FILE_BYTES, FINAL, INFO, OWN, TASKS
from .trajectories import Trajectories

if TYPE_CHECKING:
    import pyarrow as pa

EPISODE_LIMIT = 100_000
"""Most episodes of a dataset."""
FRAME_LIMIT = 50_000_000
"""Most frames of a dataset."""
UNKNOWN_START = -1
"""`start_id` of an episode whose start nobody recorded."""


@dataclass(frozen=True)
class LeRobotInfo:
    """What a dataset says of itself."""

    place: Path
    episodes: int
    frames: int
    rate_hz: float
    features: Mapping[str, tuple[str, tuple[int, ...]]]
    """Column -> element type and shape of one frame."""
    tasks: tuple[str, ...]
    """What its tasks are called, by their index."""
    protocols: Mapping[str, str]
    """Task -> protocol hash, where mtrl wrote the dataset."""


def is_lerobot(place: Path) -> bool:
    """Whether a folder claims to be a LeRobot dataset."""
    return (place / INFO).is_file()


def read_lerobot_info(place: Path) -> LeRobotInfo:
    """The description of a dataset; raises IntegrityError for one that is damaged or of another version."""
    file = place / INFO
    with reading(file, "the description of a LeRobot dataset"):
        info = Record(file, "", parse_json(read_bytes(file, MEGABYTE)))
        version = info.text("codebase_version")
        if not version.startswith("v3."):
            raise ValueError(f"its format is {version}, and v3 is read; convert it with LeRobot's own script")
        if info.text("data_path") != DATA_PATH:
            raise ValueError(f"its data_path is {info.text('data_path')}; expected {DATA_PATH}")
        described: dict[str, Any] = dict(info.record("features").fields)
        features = {
            name: (str(one["dtype"]), tuple(int(size) for size in one["shape"]))
            for name, one in described.items()
        }
        episodes, frames = info.integer("total_episodes"), info.integer("total_frames")
        if not (0 < episodes <= EPISODE_LIMIT and episodes <= frames <= FRAME_LIMIT):
            raise ValueError(
                f"it says {episodes} episodes of {frames} frames; expected 1 to {EPISODE_LIMIT} episodes of "
                f"at least one frame, {FRAME_LIMIT} in all"
            )
        rate = info.number("fps")
    table = _table(place / TASKS, EPISODE_LIMIT)
    with reading(place / TASKS, "a table of tasks"):
        name = "task" if "task" in table.column_names else "__index_level_0__"
        order = np.argsort(table["task_index"].to_numpy())
        tasks = tuple(str(table[name][int(row)]) for row in order)
    return LeRobotInfo(place, episodes, frames, rate, features, tasks, _protocols(place))


def read_lerobot(
    info: LeRobotInfo, tasks: Mapping[str, Task], success: bool = False
) -> dict[str, Trajectories]:
    """Task of the dataset -> its demonstrations, of those that `tasks` maps to one of ours.

    With `success` every episode counts as successful at its end, for datasets without `next.success`. What a
    foreign dataset lacks is filled: rewards 0, labels the actions, the last state once more after the last
    action, start `UNKNOWN_START`.

    Raises ConfigError for a task that is not in the dataset, another protocol, and missing successes;
    SpaceError for other sizes, rates or ranges; IntegrityError for a damaged file.
    """
    for name, task in tasks.items():
        _require_fit(info, name, task, success)
    episodes = _table(info.place / EPISODES, info.episodes)
    found: dict[str, list[dict[str, npt.NDArray[Any]]]] = {name: [] for name in tasks}
    with reading(info.place / EPISODES, "a table of episodes"):
        if episodes.num_rows != info.episodes:
            raise ValueError(f"it has {episodes.num_rows} episodes, and {INFO} says {info.episodes}")
        rows = episodes.select([c for c in episodes.column_names if not c.startswith("stats/")]).to_pylist()
    opened: tuple[Path, dict[str, npt.NDArray[Any]]] | None = None
    for row in rows:
        with reading(info.place / EPISODES, "a table of episodes"):
            chunk, index = int(row["data/chunk_index"]), int(row["data/file_index"])
            first, last = int(row["dataset_from_index"]), int(row["dataset_to_index"])
        file = info.place / DATA_PATH.format(chunk_index=chunk, file_index=index)
        if opened is None or opened[0] != file:
            opened = (file, _columns(file, info))
        with reading(file, "frames of a LeRobot dataset"):
            columns = opened[1]
            place = np.flatnonzero((columns["index"] >= first) & (columns["index"] < last))
            length = int(row["length"])
            if not length:
                raise ValueError(f"episode {row['episode_index']} is empty")
            if not len(place) == last - first == length:
                raise ValueError(
                    f"episode {row['episode_index']} has {len(place)} frames from {first} to {last}, "
                    f"and its length is {length}"
                )
            kinds = set(columns["task_index"][place].tolist())
            name = info.tasks[kinds.pop()]
            if kinds:
                raise ValueError(f"episode {row['episode_index']} is of several tasks")
            if name in found:
                one = {key: values[place] for key, values in columns.items()}
                one["final"] = np.asarray(row.get(FINAL) or one["observation.state"][-1], dtype=np.float32)
                one["start"] = np.asarray(row.get("start_id", UNKNOWN_START), dtype=np.int64)
                found[name].append(one)
    return {name: _joined(info.place, tasks[name], parts, success) for name, parts in found.items()}


def _protocols(place: Path) -> dict[str, str]:
    file = place / OWN
    if not file.exists():
        return {}
    with reading(file, "what mtrl recorded of a dataset"):
        return {
            k: str(v)
            for k, v in Record(file, "", parse_json(read_bytes(file, MEGABYTE)))
            .record("tasks")
            .fields.items()
        }


def _require_fit(info: LeRobotInfo, name: str, task: Task, success: bool) -> None:
    if name not in info.tasks:
        raise ConfigError(f"{info.place} has no task {name!r}; it has {', '.join(map(repr, info.tasks))}")
    recorded = info.protocols.get(name)
    if recorded is not None and recorded != task.protocol_hash:
        raise ConfigError(
            f"{info.place} was recorded of {name} under protocol {recorded}; {task.name} has "
            f"{task.protocol_hash}. Give the options that it was collected with"
        )
    expected = {
        "observation.state": ("float32", (task.observation.state,)),
        "action": ("float32", (task.action.continuous,)),
    }
    if task.observation.pixels is not None or task.action.is_discrete:
        raise SpaceError(f"{task.name} is no task of state vectors and continuous actions")
    for column, form in expected.items():
        if info.features.get(column) != form:
            raise SpaceError(
                f"{column} of {info.place} is {info.features.get(column)}; {task.name} expects {form}"
            )
    if abs(info.rate_hz - task.rate_hz) > 1e-3 * task.rate_hz:
        raise SpaceError(
            f"{info.place} has {info.rate_hz:g} frames per second, {task.name} {task.rate_hz:g} decisions"
        )
    if "next.success" not in info.features and not success:
        raise ConfigError(
            f"{info.place} does not say which episodes succeeded (next.success); if all did, pass --success"
        )


def _table(file: Path, rows: int) -> pa.Table:
    """A small parquet file whole; raises IntegrityError for a damaged one, and one of more rows."""
    import pyarrow.parquet as pq

    with reading(file, "a parquet file"):
        require_size(file, 4 * FILE_BYTES)
        opened = pq.ParquetFile(file)
        if opened.metadata.num_rows > rows:
            raise ValueError(f"it has {opened.metadata.num_rows} rows; at most {rows} are expected")
        return opened.read()


def _columns(file: Path, info: LeRobotInfo) -> dict[str, npt.NDArray[Any]]:
    """The columns of a file of frames that are used, of declared type and shape."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = {
        "observation.state": pa.float32(), "action": pa.float32(), "expert_action": pa.float32(),
        "next.reward": pa.float32(), "next.terminated": pa.bool_(), "next.truncated": pa.bool_(),
        "next.success": pa.bool_(), "index": pa.int64(), "task_index": pa.int64(),
    }  # fmt: skip
    wanted = [name for name in known if name in info.features]
    with reading(file, "frames of a LeRobot dataset"):
        require_size(file, 4 * FILE_BYTES)
        opened = pq.ParquetFile(file)
        if opened.metadata.num_rows > info.frames:
            raise ValueError(f"it has {opened.metadata.num_rows} frames, and all files {info.frames}")
        schema = opened.schema_arrow
        for name in wanted:
            kind = schema.field(name).type
            if (
                kind.value_type if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) else kind
            ) != known[name]:
                raise ValueError(f"{name} is {kind}")
        table = opened.read(columns=wanted)
        found = {}
        for name in wanted:
            (size, *_), column = info.features[name][1], table[name].combine_chunks()
            if column.null_count:
                raise ValueError(f"{name} has rows without a value")
            nested = pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)
            values = (column.flatten() if nested else column).to_numpy(zero_copy_only=False)
            found[name] = values.reshape(len(table), size) if nested else values
        return found


def _joined(place: Path, task: Task, parts: list[dict[str, npt.NDArray[Any]]], success: bool) -> Trajectories:
    """Episodes of one task in a row, with what they lack."""
    if not parts:
        raise IntegrityError(f"{place} has no episode of {task.name}")
    lengths = [len(part["action"]) for part in parts]

    def joined(name: str, kind: type[np.generic], missing: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if name not in parts[0]:
            return missing
        return np.ascontiguousarray(np.concatenate([part[name] for part in parts]), dtype=kind)

    count = sum(lengths)
    actions = joined("action", np.float32, np.zeros(0))
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    last = np.zeros(count, dtype=bool)
    last[offsets[1:] - 1] = True
    terminated = joined("next.terminated", np.bool_, np.zeros(count, dtype=bool))
    states = [np.concatenate([part["observation.state"], part["final"][None]]) for part in parts]
    found = Trajectories(
        observations={"state": np.concatenate(states)},
        actions=actions,
        labels=joined("expert_action", np.float32, actions),
        rewards=joined("next.reward", np.float32, np.zeros(count, dtype=np.float32)),
        terminated=terminated,
        truncated=joined("next.truncated", np.bool_, last & ~terminated),
        success=last.copy() if success else joined("next.success", np.bool_, last),
        offsets=offsets,
        start_id=np.array([part["start"] for part in parts], dtype=np.int64),
    )
    numbers = {
        "observation.state": found.observations["state"],
        "action": found.actions,
        "expert_action": found.labels,
        "next.reward": found.rewards,
    }
    for name, values in numbers.items():
        if not np.isfinite(values).all():
            raise SpaceError(f"{name} of {task.name} in {place} holds numbers that are not finite")
    if not (np.abs(found.actions) <= 1).all() or not (np.abs(found.labels) <= 1).all():
        raise SpaceError(
            f"actions of {task.name} in {place} go up to {np.abs(found.actions).max():g}; expected -1 to 1. "
            "They are of another scale, or another task's"
        )
    return found
