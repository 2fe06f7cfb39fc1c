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
            made = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
            return np.asarray(made)
        found = np.lib.format.open_memmap(path, mode="r+")
        if found.shape != shape or found.dtype != np.dtype(dtype):
            raise ConfigError(
                f"{path} holds {found.dtype} {list(found.shape)}; expected {np.dtype(dtype)} {list(shape)}. "
                "Reopen it with the same tasks, agent.replay.capacity and extras, or choose another folder"
            )
        return np.asarray(found)
