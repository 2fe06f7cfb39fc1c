"""Directories that are written whole or not at all, and refused when a byte of them changed.

Checkpoints, datasets and artefacts are directories with a `manifest.sha256` of lines
`<hex>  <relative path>`, sorted by path; `sha256sum --check manifest.sha256` reads it too. The root
hash is the SHA-256 of that file's bytes and names the whole content.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from mtrl.errors import ExistsError, IntegrityError, ResourceError
from mtrl.reading import MEGABYTE, read_bytes, reading, require_size

MANIFEST = "manifest.sha256"
"""Name of the file of hashes inside a directory."""

MANIFEST_BYTES = 16 * MEGABYTE
"""Largest file of hashes."""

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{32}\.partial")


def write_manifest(directory: Path) -> str:
    """Hashes every file below `directory` into its manifest and returns the root hash.

    Raises IntegrityError for a file name that a line of the manifest cannot hold.
    """
    lines = []
    for path in sorted(_files(directory)):
        if any(character in path for character in "\n\r\\"):
            raise IntegrityError(f"{directory}: the file name {path!r} cannot stand in {MANIFEST}; rename it")
        lines.append(f"{_hash_file(directory / path)}  {path}\n")
    content = "".join(lines).encode()
    (directory / MANIFEST).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def verify_manifest(directory: Path) -> str:
    """Checks every file that the manifest lists and returns the root hash.

    Files that the manifest does not list are ignored. Raises IntegrityError, naming the first file
    that is missing or whose bytes changed.
    """
    manifest = directory / MANIFEST
    content = _read_manifest(directory)
    for recorded, path in _parse(manifest, content):
        file = directory / path
        _require_listed(file, manifest)
        _require_hash(file, _hash_file(file), recorded)
    return hashlib.sha256(content).hexdigest()


def read_verified(directory: Path, limits: Mapping[str, int]) -> tuple[str, dict[str, bytes]]:
    """The root hash of a directory of a few files, as of `verify_manifest`, and the very bytes of each that
    were hashed.

    `limits` maps every file that the manifest lists to the most bytes that it may have. Raises IntegrityError
    as `verify_manifest` does, and before anything is read for a file that is larger, is a link out of the
    directory, is not listed, or is listed and not in `limits`.
    """
    manifest = directory / MANIFEST
    content = _read_manifest(directory)
    recorded = {path: expected for expected, path in _parse(manifest, content)}
    for name in limits:
        if name not in recorded:
            raise IntegrityError(f"{manifest} does not list {name}; write {directory} again")
    for name in recorded:
        file = directory / name
        if name not in limits:
            raise IntegrityError(
                f"{manifest} lists {name!r}, which is no part of {directory}; write it again"
            )
        _require_listed(file, manifest)
        if not file.resolve().is_relative_to(directory.resolve()):
            raise IntegrityError(f"{file} is a link out of {directory}; put the file itself there")
        require_size(file, limits[name])
    kept = {}
    for name, expected in recorded.items():
        with reading(directory / name, "a file"):
            kept[name] = read_bytes(directory / name, limits[name])
        _require_hash(directory / name, hashlib.sha256(kept[name]).hexdigest(), expected)
    return hashlib.sha256(content).hexdigest(), kept


@contextlib.contextmanager
def atomic_directory(target: Path, overwrite: bool = False) -> Iterator[Path]:
    """A new directory next to `target` to write into; when the block ends it becomes `target`.

    Everything is flushed to the disk before the rename, so after a power cut `target` is whole or
    absent. If the block raises, nothing remains. With `overwrite` an existing `target` is replaced: it is
    moved aside, the new one takes its name, and only then the old one is removed.

    Raises ExistsError when `target` exists and `overwrite` is False, before the block runs and again
    before the rename, and ResourceError in place of a full disk's OSError.
    """
    _refuse_existing(target, overwrite)
    partial = _partial_name(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        yield partial
        _flush(partial)
        _refuse_existing(target, overwrite)
        _replace(partial, target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if is_disk_full(error):
            raise ResourceError(
                f"the disk is full: {target} was not written and nothing is left of it. "
                f"Free some space under {target.parent} and run again"
            ) from error
        raise


def remove_directory(directory: Path) -> None:
    """Removes a directory so that no half of it is ever seen under its name."""
    doomed = _partial_name(directory)
    directory.rename(doomed)
    shutil.rmtree(doomed)


def sweep_partials(parent: Path) -> None:
    """Removes what killed writers left in `parent`; call it only where no other process writes."""
    for path in parent.iterdir():
        if path.is_dir() and _PARTIAL.fullmatch(path.name):
            shutil.rmtree(path)


def is_disk_full(error: BaseException) -> bool:
    """Whether an exception means that the disk or the quota is full.

    HDF5 and safetensors raise classes of their own without an errno; the system's wording is in them.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return os.strerror(errno.ENOSPC) in str(error)


def _files(directory: Path) -> list[str]:
    every = (path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    return [path for path in every if path != MANIFEST]


def _read_manifest(directory: Path) -> bytes:
    manifest = directory / MANIFEST
    if not directory.is_dir():
        raise IntegrityError(f"{directory} is missing; expected a directory with a {MANIFEST}")
    if not manifest.is_file():
        raise IntegrityError(
            f"{manifest} is missing; without it the content of {directory} cannot be trusted"
        )
    with reading(manifest, "hashes"):
        return read_bytes(manifest, MANIFEST_BYTES)


def _require_listed(file: Path, manifest: Path) -> None:
    if not file.is_file():
        raise IntegrityError(
            f"{file} is missing; {manifest} lists it. Restore it or write {manifest.parent} again"
        )


def _require_hash(file: Path, found: str, recorded: str) -> None:
    if found != recorded:
        raise IntegrityError(
            f"{file} was truncated or edited after it was written ({file.stat().st_size} bytes, SHA-256 "
            f"{found[:16]}..., expected {recorded[:16]}...). Restore it or write {file.parent} again"
        )


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse(manifest: Path, content: bytes) -> Iterator[tuple[str, str]]:
    """Pairs of hash and relative path; refuses what `write_manifest` would never have written."""
    text = content.decode(errors="replace")
    if text and not text.endswith("\n"):
        raise IntegrityError(f"{manifest} was truncated: its last line has no end")
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise IntegrityError(f"{manifest} was edited: line {number} is not '<SHA-256>  <relative path>'")
        path = match[2]
        if path.startswith("/") or ".." in path.split("/"):
            raise IntegrityError(f"{manifest} was edited: line {number} leads out of the directory: {path!r}")
        yield match[1], path


def _partial_name(target: Path) -> Path:
    # Hidden, unique, and on the same file system, where a rename is atomic.
    return target.parent / f".{target.name}.{uuid.uuid4().hex}.partial"


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
