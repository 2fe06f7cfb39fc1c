"""Replay arrays that are kept in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError


class MappedStorage:
    """Replay arrays in memory-mapped files `NAME.npy` of a folder: they may exceed memory and outlive the
    process. A folder serves one replay at a time.
    """

    def __init__(self, folder: Path) -> None:
        """Creates the folder where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def allocate(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The array of that name as it was left, zeros where it is new; a file grows on disk as it fills.

        Raises ConfigError where an array of another shape or type has the name.
        """
        path = self._folder / f"{name}.npy"
        if 0 in shape:
            # a file without content cannot be mapped
            return np.zeros(shape, dtype=dtype)
        if not path.exists():
            # a process that is killed here leaves no short file under the name
            partial = path.with_suffix(".partial")
            np.lib.format.open_memmap(partial, mode="w+", dtype=np.dtype(dtype), shape=shape).flush()
            partial.replace(path)
        found = np.lib.format.open_memmap(path, mode="r+")
        if found.shape != shape or found.dtype != np.dtype(dtype):
            raise ConfigError(
                f"{path} holds {found.dtype} {list(found.shape)}; expected {np.dtype(dtype)} {list(shape)}. "
                "Reopen it with the same tasks, agent.replay.capacity and extras, or choose another folder"
            )
        return np.asarray(found)


class CommitRecord:
    """How far a replay in files is whole. One store of eight bytes switches from one state to the next, so
    that a process killed at any moment leaves the older or the newer one.
    """

    def __init__(self, storage: MappedStorage, rings: int) -> None:
        """The record as it was left; number 0 where nothing was committed yet."""
        self._cells = storage.allocate("commits", (2, 2 + rings), np.int64)
        self._turn = storage.allocate("turn", (1,), np.int64)

    @property
    def number(self) -> int:
        """Number of the last fragment that is whole."""
        return int(self._current[0])

    @property
    def steps(self) -> int:
        """Environment steps until then."""
        return int(self._current[1])

    @property
    def written(self) -> npt.NDArray[np.int64]:
        """[rings], observations that each ring had written by then."""
        return self._current[2:].copy()

    def commit(self, number: int, steps: int, written: npt.NDArray[np.int64]) -> None:
        """Records that everything up to a fragment is whole."""
        free = 1 - int(self._turn[0])
        self._cells[free, 0], self._cells[free, 1], self._cells[free, 2:] = number, steps, written
        self._turn[0] = free

    @property
    def _current(self) -> npt.NDArray[np.int64]:
        return self._cells[int(self._turn[0])]
