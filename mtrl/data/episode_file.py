"""The HDF5 file of a Minari dataset, of which only declared arrays are read.

Minari's own reader builds the environment that the metadata name, follows links into other files and reads
arrays of whatever size they claim to have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

_LAYOUTS = (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED)


@dataclass(frozen=True)
class Column:
    """An array that every episode has, with one row per decision."""

    path: str
    """Place within the episode, such as "infos/success"."""
    dtype: type[np.generic]
    row: tuple[int, ...]
    """Shape of one row."""
    surplus: int = 0
    """Rows beyond the number of decisions: 1 for observations."""


@dataclass(frozen=True)
class EpisodeArrays:
    """What a file holds, all episodes in a row."""

    columns: Mapping[str, npt.NDArray[Any]]
    """Name of the column -> array over all episodes."""
    lengths: list[int]
    """Decisions of each episode."""
    starts: list[int]
    """`start_id` of each episode."""


def read_episodes(path: Path, columns: Mapping[str, Column]) -> EpisodeArrays:
    """The declared arrays of every episode; `rewards` among the columns counts the decisions.

    Raises ValueError, before any array is read, for one that is missing, a link, of another type or
    shape, compressed, or larger than what the file stores of it. HDF5's errors pass.
    """
    room = path.stat().st_size
    with h5py.File(path, "r") as file:
        found: dict[str, list[h5py.Dataset]] = {name: [] for name in columns}
        lengths, starts = [], []
        for index in range(len(file)):
            episode = _member(file, f"episode_{index}", h5py.Group)
            starts.append(_start(episode))
            lengths.append(len(_member(episode, columns["rewards"].path, h5py.Dataset)))
            for name, column in columns.items():
                array = _member(episode, column.path, h5py.Dataset)
                _require(array, column, lengths[-1] + column.surplus)
                found[name].append(array)
                room -= array.nbytes
                if room < 0:
                    raise ValueError("its arrays claim more bytes than the file has")
        read = {name: np.concatenate([_values(array) for array in found[name]]) for name in columns}
    return EpisodeArrays(read, lengths, starts)


def _member(group: h5py.Group, path: str, kind: type) -> Any:  # noqa: ANN401 - h5py is untyped
    """A member of a group that is held by the group itself."""
    for name in path.split("/"):
        if not isinstance(group, h5py.Group) or not group.id.links.exists(name.encode()):
            raise ValueError(f"{group.name} holds no {name}")
        if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
            raise ValueError(f"{name} in {group.name} is a link; expected the data themselves")
        group = group[name]
    if not isinstance(group, kind):
        raise ValueError(f"{group.name} is a {type(group).__name__}; expected a {kind.__name__}")
    return group


def _require(array: h5py.Dataset, column: Column, rows: int) -> None:
    """Refuses an array whose description is not that of its column; reads nothing of it."""
    shape, plan = (rows, *column.row), array.id.get_create_plist()
    if array.dtype != column.dtype or array.shape != shape:
        raise ValueError(
            f"{array.name} is {array.dtype} {array.shape}; expected {np.dtype(column.dtype)} {shape}"
        )
    chunk = int(np.prod(array.chunks or (0,))) * array.dtype.itemsize
    stored = array.id.get_storage_size()
    if plan.get_nfilters() or plan.get_external_count() or plan.get_layout() not in _LAYOUTS:
        raise ValueError(f"{array.name} is compressed or lies in another file; expected its plain bytes")
    if not max(array.nbytes, chunk) <= stored:
        raise ValueError(f"{array.name} claims {array.nbytes:,} bytes; the file stores {stored:,} of it")


def _start(episode: h5py.Group) -> int:
    described = episode.attrs.get_id("start_id")
    if described.shape != () or described.dtype.kind not in "iu":
        raise ValueError(f"start_id of {episode.name} is not a whole number")
    start = int(episode.attrs["start_id"])
    if not 0 <= start < 2**63:
        raise ValueError(f"start_id of {episode.name} is {start}; expected at least 0")
    return start


def _values(array: h5py.Dataset) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = array[()]
    # a file may hold any byte where a boolean is declared
    if values.dtype == np.bool_ and (values.view(np.uint8) > 1).any():
        raise ValueError(f"{array.name} holds a boolean that is neither true nor false")
    return values
