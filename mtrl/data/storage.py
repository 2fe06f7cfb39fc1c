"""Where a replay's arrays live: in memory, or in the files of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError


class ReplayStorage(Protocol):
    """Hands out arrays by name, which replay writes to in place."""

    def allocate(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The array of that name as it was left, zeros where it is new.

        Raises ConfigError where one of another shape or type is kept under the name.
        """


class MemoryStorage:
    """Memory of this process; the operating system provides it as it fills."""

    def allocate(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Zeros."""
        return np.zeros(shape, dtype=dtype)


class MappedStorage:
    """One memory-mapped file per array, `NAME.npy`, in a folder: it may exceed memory and outlives the
    process. A folder serves one replay at a time.
    """

    def __init__(self, folder: Path) -> None:
        """Creates the folder where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def allocate(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """As of ReplayStorage. A new file takes up room on disk as it fills."""
        path = self._folder / f"{name}.npy"
        if 0 in shape:
            # a file without content cannot be mapped
            return np.zeros(shape, dtype=dtype)
        if not path.exists():
            made = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
            return np.asarray(made)
        found = np.lib.format.open_memmap(path, mode="r+")
        if found.shape != shape or found.dtype != np.dtype(dtype):
            raise ConfigError(
                f"{path} holds {found.dtype} {list(found.shape)}; expected {np.dtype(dtype)} {list(shape)}. "
                "Reopen it with the same tasks, agent.replay.capacity and extras, or choose another folder"
            )
        return np.asarray(found)
