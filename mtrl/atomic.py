"""Files and directories that are written whole or not at all, by the owner of the place alone."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path

from mtrl.disk_errors import disk_errors
from mtrl.errors import ExistsError
from mtrl.ownership import require_ownership

_PARTIAL = re.compile(r"\.(.+)\.[0-9a-f]{32}\.partial(\.\w+)?")


@contextlib.contextmanager
def atomic_directory(target: Path, overwrite: bool = False) -> Iterator[Path]:
    """A new directory next to `target` to write into; when the block ends it becomes `target`.

    Everything is flushed to the disk before the rename, so after a power cut `target` is whole or
    absent. If the block raises, nothing remains. With `overwrite` an existing `target` is replaced: it is
    moved aside, the new one takes its name, and only then the old one is removed.

    Raises ExistsError when `target` exists and `overwrite` is False, before the block runs and again
    before the rename, ResourceError where the disk refuses, and TakenOverError as `require_ownership` does.
    """
    _refuse_existing(target, overwrite)
    partial = _partial_name(target)
    with disk_errors(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.mkdir()
            yield partial
            _flush(partial)
            _refuse_existing(target, overwrite)
            require_ownership()
            _replace(partial, target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextlib.contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """A new name next to `target`, with its ending, to write a file under; when the block ends the file
    becomes `target`, in place of an older one. Where the block raises, or writes nothing, what was there
    stays and nothing is added. Folders are made as needed.

    Raises ResourceError where the disk refuses, and TakenOverError as `require_ownership` does.
    """
    partial = _partial_name(target, target.suffix)
    with disk_errors(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            if partial.exists():
                _sync(partial)
                require_ownership()
                os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, overwrite: bool = False) -> Path:
    """Writes UTF-8 text whole or not at all; raises ExistsError where the file is there and `overwrite` is
    False, and as `atomic_file` does.
    """
    if path.exists() and not overwrite:
        raise ExistsError(f"{path} is already there; choose another name or ask for --overwrite")
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
    return path


def remove_directory(directory: Path) -> None:
    """Removes a directory so that no half of it is ever seen under its name."""
    require_ownership()
    doomed = _partial_name(directory)
    directory.rename(doomed)
    shutil.rmtree(doomed)


def sweep_partials(folder: Path, name: str = "", *, depth: int = 1, skip: Collection[str] = ()) -> None:
    """Removes what killed writers left in `folder`, of the file or directory `name` or of all; call it only
    where no other process writes. `depth` levels of folders are looked through, those named in `skip` not.
    """
    require_ownership()
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        directory = path.is_dir() and not path.is_symlink()
        partial = _PARTIAL.fullmatch(path.name)
        if partial is not None and name in ("", partial[1]):
            shutil.rmtree(path) if directory else path.unlink()
        elif directory and depth > 1 and path.name not in skip:
            sweep_partials(path, depth=depth - 1, skip=skip)


def _partial_name(target: Path, ending: str = "") -> Path:
    # Hidden, unique, and on the same file system, where a rename is atomic.
    return target.parent / f".{target.name}.{uuid.uuid4().hex}.partial{ending}"


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if os.path.lexists(target) and not overwrite:
        raise ExistsError(f"{target} already exists; choose another name, or pass --overwrite to replace it")
    if os.path.lexists(target) and (target.is_symlink() or not target.is_dir()):
        raise ExistsError(f"{target} exists and is not a directory; it is not replaced. Move it away")


def _replace(partial: Path, target: Path) -> None:
    if target.exists():
        old = _partial_name(target)
        target.rename(old)
        try:
            partial.rename(target)
        except OSError:
            old.rename(target)
            raise
        shutil.rmtree(old)
    else:
        partial.rename(target)
    _sync(target.parent)


def _flush(directory: Path) -> None:
    for root, _, names in os.walk(directory, topdown=False):
        for name in names:
            _sync(Path(root, name))
        _sync(Path(root))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
