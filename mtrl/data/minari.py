"""Demonstrations as Minari datasets (Farama Foundation), one per task, that Minari itself can load.

Minari holds one environment per dataset, so a task set becomes one dataset per task under a
namespace, for example `metaworld/reach-v3-v0`. A dataset is written through Minari's own storage class at an
explicit place; the environment variable MINARI_DATASETS_PATH is neither read nor set. To open one with
Minari alone, set it to the root that was given here and call `minari.load_dataset(dataset_id)`.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtrl.atomic import atomic_directory
from mtrl.errors import ConfigError, SpaceError
from mtrl.evaluation.records import Record
from mtrl.integrity import verify_manifest, write_manifest
from mtrl.reading import MEGABYTE, parse_json, read_bytes, reading
from mtrl.tasks import Task

from .trajectories import STEP_FIELDS, Trajectories

if TYPE_CHECKING:
    import gymnasium
    from minari.data_collector import EpisodeBuffer

    from .episode_file import Column

Row = tuple[type[np.floating[Any]] | type[np.integer[Any]], tuple[int, ...]]
"""Element type and shape of one row of an array."""
_DATA = Path("data", "main_data.hdf5")
_DATASET_ID = re.compile(r"([-\w]{2,}/)+[-\w]+-v\d+", re.ASCII)


def dataset_id_of(task: Task, version: int = 0) -> str:
    """Minari's name for a task's dataset: the task's own name and a version, other characters as "_"."""
    return re.sub(r"[^-\w/]", "_", task.name, flags=re.ASCII) + f"-v{version}"


def write_dataset(
    root: Path,
    dataset_id: str,
    task: Task,
    trajectories: Trajectories,
    provenance: Mapping[str, Any],
    overwrite: bool = False,
) -> str:
    """Writes a dataset whole or not at all under `root/dataset_id`; returns its root hash.

    An episode's `actions` are the executed ones; `infos` hold `expert_action` (the clean label) and
    `success`, one entry per decision; its metadata hold `start_id`. A single bucket is the observation
    itself, several are a Dict space. Pixels are stored as they are, never as JPEG. `provenance` (how the
    data came to be: expert, noise, versions, commit; JSON values) and the task's name and protocol hash
    stand in the metadata. Minari's `recover_environment` gives a `GymnasiumView` of the task, wherever its
    suite is known; `reset(options={"start": start_id})` begins the episode of that start.

    Raises ConfigError for a malformed id or provenance, SpaceError when the arrays are not the task's,
    ExistsError when the dataset is there and `overwrite` is False, ResourceError when the disk is full.
    """
    from minari.dataset.minari_storage import MinariStorage

    from mtrl.rollout.gymnasium_view import view_spec

    target = _place(root, dataset_id)
    observation_space, action_space = _spaces(task)
    _check(task, trajectories)
    metadata = {
        "dataset_id": dataset_id,
        "minari_version": importlib.metadata.version("minari"),
        "description": f"Demonstrations of {task.name}; infos/expert_action is the clean action.",
        "algorithm_name": "expert",
        "mtrl": {"task": task.name, "protocol_hash": task.protocol_hash, "provenance": _json(provenance)},
    }
    with atomic_directory(target, overwrite) as partial:
        storage = MinariStorage.new(
            partial / "data",
            observation_space,
            action_space,
            view_spec(task),
            data_format="hdf5",
            jpeg_encoding=False,
        )
        storage.update_metadata(metadata)
        storage.update_episodes(_episode_buffers(task, trajectories))
        storage.update_episode_metadata([{"start_id": int(start)} for start in trajectories.start_id])
        return write_manifest(partial)


def read_dataset(root: Path, dataset_id: str, task: Task) -> Trajectories:
    """Reads a dataset of `task` that `write_dataset` wrote, every bit as it was, after checking its hashes.

    Raises ConfigError when there is no such dataset or it was recorded under another protocol than
    `task`'s, IntegrityError naming the file that is missing, truncated or edited.
    """
    from .episode_file import read_episodes

    recorded = read_provenance(root, dataset_id)
    if recorded["protocol_hash"] != task.protocol_hash:
        raise ConfigError(
            f"dataset {dataset_id} was recorded for {recorded['task']} "
            f"under protocol {recorded['protocol_hash']}; "
            f"expected {task.name} under {task.protocol_hash}. Give the tasks and tasks.options that it was "
            "collected with, or collect it again with the present ones"
        )
    file = _place(root, dataset_id) / _DATA
    with reading(file, f"demonstrations of {task.name}", "collect them again"):
        read = read_episodes(file, _columns(task))
        steps = {name: read.columns[name] for name in STEP_FIELDS}
        trajectories = Trajectories(
            observations={name: read.columns[name] for name in task.observation.buckets},
            offsets=np.cumsum([0, *read.lengths], dtype=np.int64),
            start_id=np.array(read.starts, dtype=np.int64),
            **steps,
        )
        _check(task, trajectories)
    return trajectories


def read_provenance(root: Path, dataset_id: str) -> dict[str, Any]:
    """`task`, `protocol_hash` and `provenance` of a dataset, and `root_hash`, which names its whole content.

    Checks every hash; raises as `read_dataset` does.
    """
    place = _place(root, dataset_id)
    if not place.is_dir():
        raise ConfigError(f"there is no dataset {dataset_id} under {root}; record it with `mtrl collect`")
    root_hash = verify_manifest(place)
    file = place / "data" / "metadata.json"
    with reading(file, "the description of a dataset that mtrl wrote"):
        described = parse_json(read_bytes(file, MEGABYTE))
        recorded = Record(file, "mtrl", described.get("mtrl") if isinstance(described, dict) else None)
        return {
            "task": recorded.text("task"),
            "protocol_hash": recorded.text("protocol_hash"),
            "provenance": recorded.record("provenance").fields,
            "root_hash": root_hash,
        }


def _place(root: Path, dataset_id: str) -> Path:
    if not _DATASET_ID.fullmatch(dataset_id):
        raise ConfigError(
            f"{dataset_id!r} is no dataset id; expected namespace/name-v0 of letters, digits, '-' and '_', "
            "the namespace at least two of them"
        )
    # Minari joins a relative place with itself
    return root.absolute() / dataset_id


def _rows(task: Task) -> dict[str, Row]:
    """Array -> element type and shape of one row: the task's buckets, then `actions`."""
    found: dict[str, Row] = {}
    if task.observation.state is not None:
        found["state"] = (np.float32, (task.observation.state,))
    if task.observation.pixels is not None:
        found["pixels"] = (np.uint8, task.observation.pixels)
    found["actions"] = (np.int64, ()) if task.action.is_discrete else (np.float32, (task.action.continuous,))
    return found


def _columns(task: Task) -> dict[str, Column]:
    """Every array of an episode of the task, as `_episode_buffers` writes it."""
    from .episode_file import Column

    rows = _rows(task)
    action, action_row = rows.pop("actions")
    single = len(rows) == 1
    return {
        **{
            name: Column("observations" if single else f"observations/{name}", dtype, row, surplus=1)
            for name, (dtype, row) in rows.items()
        },
        "actions": Column("actions", action, action_row),
        "labels": Column("infos/expert_action", action, action_row),
        "rewards": Column("rewards", np.float32, ()),
        "terminated": Column("terminations", np.bool_, ()),
        "truncated": Column("truncations", np.bool_, ()),
        "success": Column("infos/success", np.bool_, ()),
    }


def _spaces(task: Task) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
    from gymnasium import spaces

    rows = _rows(task)
    _, action_shape = rows.pop("actions")
    limits = {"state": (-np.inf, np.inf), "pixels": (0, 255)}
    found: dict[str, gymnasium.Space[Any]] = {
        name: spaces.Box(*limits[name], shape, dtype) for name, (dtype, shape) in rows.items()
    }
    observation = spaces.Dict(found) if len(found) > 1 else next(iter(found.values()))
    if task.action.is_discrete:
        return observation, spaces.Discrete(task.action.discrete)
    return observation, spaces.Box(-1.0, 1.0, action_shape, np.float32)


def _check(task: Task, trajectories: Trajectories) -> None:
    """Raises SpaceError unless every array has the task's own row shape, the dtype that is stored, and values
    that the task can show and take.
    """
    arrays = {**trajectories.observations, "actions": trajectories.actions}
    for name, (dtype, shape) in _rows(task).items():
        if name not in arrays:
            raise SpaceError(
                f"trajectories of {task.name} lack the bucket {name!r}; they have {sorted(arrays)}"
            )
        found = arrays[name]
        if found.dtype != dtype or found.shape[1:] != shape:
            raise SpaceError(
                f"{name} of {task.name}: expected {np.dtype(dtype)} rows of shape {shape}, "
                f"got {found.dtype} of shape {found.shape[1:]}"
            )
    if trajectories.rewards.dtype != np.float32:
        raise SpaceError(f"rewards of {task.name} are float32; got {trajectories.rewards.dtype}")
    if trajectories.episode_count == 0:
        raise SpaceError(f"there is no episode of {task.name}; a dataset holds at least one")
    for name in (*task.observation.buckets, "rewards"):
        values = trajectories.rewards if name == "rewards" else trajectories.observations[name]
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise SpaceError(f"{name} of {task.name} holds numbers that are not finite")
    low, high = (0, task.action.discrete - 1) if task.action.is_discrete else (-1, 1)
    for name, acted in (("actions", trajectories.actions), ("labels", trajectories.labels)):
        if not ((acted >= low) & (acted <= high)).all():
            raise SpaceError(f"{name} of {task.name} lie from {low} to {high}; some do not")


def _episode_buffers(task: Task, trajectories: Trajectories) -> Iterator[EpisodeBuffer]:
    """Each episode with its observations in the form of the dataset's observation space."""
    from minari.data_collector import EpisodeBuffer

    for e, (begin, end) in enumerate(pairwise(trajectories.offsets)):
        rows, steps = slice(begin + e, end + e + 1), slice(begin, end)
        filled = {bucket: trajectories.observations[bucket][rows] for bucket in task.observation.buckets}
        yield EpisodeBuffer(
            observations=filled if len(filled) > 1 else next(iter(filled.values())),
            actions=trajectories.actions[steps],
            rewards=trajectories.rewards[steps],
            terminations=trajectories.terminated[steps],
            truncations=trajectories.truncated[steps],
            infos={"expert_action": trajectories.labels[steps], "success": trajectories.success[steps]},
        )


def _json(provenance: Mapping[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(dict(provenance), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"provenance must be JSON values: {error}") from error
    return dict(provenance)
