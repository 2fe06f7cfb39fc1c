"""What of a folder travels with a job, selected as Ray selects it and measured before anything is sent."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

from mtrl.errors import ConfigError, ResourceError

LIMIT_BYTES = 100 * 2**20
"""Largest body that a Jobs server takes; Ray answers 413 beyond it."""
EXCLUDED = (
    ".git", ".venv*", "venv", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info",
    "/runs", "/outputs", "/wandb",
)  # fmt: skip
"""What never travels, in the grammar of .gitignore: histories, environments, caches, what training wrote."""
NAMED = 5
"""Files that a refusal names."""


@dataclass(frozen=True)
class Upload:
    """A working folder of a job."""

    folder: Path
    excludes: tuple[str, ...]
    """Patterns that leave files out, beside those of .gitignore and .rayignore in the folder."""
    files: tuple[tuple[int, Path], ...]
    """(bytes, path below the folder), the largest first."""

    @property
    def total(self) -> int:
        """Bytes before compression."""
        return sum(size for size, _ in self.files)

    def __str__(self) -> str:
        return f"{self.folder}: {len(self.files):,} files, {_megabytes(self.total)}"


def upload_of(folder: Path, excludes: Sequence[str] = ()) -> Upload:
    """What travels of a folder. Raises ConfigError for no folder, ResourceError, which names the largest
    files, for more than `LIMIT_BYTES` before compression.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; name the one that the job shall work in")
    root, patterns = folder.absolute(), (*EXCLUDED, *excludes)
    found: list[tuple[int, Path]] = []

    def count(path: Path) -> None:
        if not path.is_dir():
            found.append((path.stat().st_size, path.relative_to(root)))

    _dir_travel(root, [_get_excludes(root, list(patterns))], count, include_gitignore=True, logger=_SILENT)
    upload = Upload(root, patterns, tuple(sorted(found, key=lambda item: (-item[0], item[1]))))
    if upload.total > LIMIT_BYTES:
        largest = ", ".join(f"{path} ({_megabytes(size)})" for size, path in upload.files[:NAMED])
        raise ResourceError(
            f"{upload}; at most {_megabytes(LIMIT_BYTES)} travel with a job. The largest: {largest}. Leave "
            "files out with --exclude PATTERN or a .rayignore, work in another folder with --working-dir, "
            "or put data where the nodes can read it"
        )
    return upload


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


_SILENT = logging.getLogger(f"{__name__}.{os.getpid()}")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False
