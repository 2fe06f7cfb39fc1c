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
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtrl.atomic import atomic_directory
from mtrl.errors import ConfigError, IntegrityError, SpaceError
from mtrl.integrity import verify_manifest, write_manifest
from mtrl.tasks import Task

from .trajectories import Trajectories

if TYPE_CHECKING:
    import gymnasium
    from minari.data_collector import EpisodeBuffer

Row = tuple[type[np.floating[Any]] | type[np.integer[Any]], tuple[int, ...]]
"""Element type and shape of one row of an array."""
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
    stand in the metadata.

    Raises ConfigError for a malformed id or provenance, SpaceError when the arrays are not the task's,
    ExistsError when the dataset is there and `overwrite` is False, ResourceError when the disk is full.
    """
    from minari.dataset.minari_storage import MinariStorage

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
            partial / "data", observation_space, action_space, data_format="hdf5", jpeg_encoding=False
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
    from minari import MinariDataset

    recorded = read_provenance(root, dataset_id)
    if recorded["protocol_hash"] != task.protocol_hash:
        raise ConfigError(
            f"dataset {dataset_id} was recorded for {recorded['task']} "
            f"under protocol {recorded['protocol_hash']}; "
            f"expected {task.name} under {task.protocol_hash}. Collect it again with the present settings"
        )
    dataset = MinariDataset(_place(root, dataset_id) / "data")
    episodes = list(dataset.iterate_episodes())
    starts = [metadata["start_id"] for metadata in dataset.storage.get_episode_metadata(range(len(episodes)))]
    buckets = task.observation.buckets

    def joined(get: Callable[[Any], Any]) -> npt.NDArray[Any]:
        return np.concatenate([get(episode) for episode in episodes])

    def bucket(name: str) -> npt.NDArray[np.generic]:
        return joined(lambda e: e.observations[name] if len(buckets) > 1 else e.observations)

    trajectories = Trajectories(
        observations={name: bucket(name) for name in buckets},
        actions=joined(lambda e: e.actions),
        labels=joined(lambda e: e.infos["expert_action"]),
        rewards=joined(lambda e: e.rewards),
        terminated=joined(lambda e: e.terminations),
        truncated=joined(lambda e: e.truncations),
        success=joined(lambda e: e.infos["success"]),
        offsets=np.cumsum([0, *(len(episode.rewards) for episode in episodes)], dtype=np.int64),
        start_id=np.array(starts, dtype=np.int64),
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
    recorded = json.loads(file.read_text(encoding="utf-8")).get("mtrl") if file.is_file() else None
    if not isinstance(recorded, dict):
        raise IntegrityError(f"{file} names no task; the dataset was not written by mtrl")
    return {**recorded, "root_hash": root_hash}


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
    """Raises SpaceError unless every array has the task's own row shape and the dtype that is stored."""
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
