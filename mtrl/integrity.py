"""Directories that are refused when a byte of them changed.

Checkpoints, datasets and artefacts are directories with a `manifest.sha256` of lines
`<hex>  <relative path>`, sorted by path; `sha256sum --check manifest.sha256` reads it too. The root
hash is the SHA-256 of that file's bytes and names the whole content.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from mtrl.errors import IntegrityError
from mtrl.reading import MEGABYTE, read_bytes, reading, require_size

MANIFEST = "manifest.sha256"
"""Name of the file of hashes inside a directory."""

MANIFEST_BYTES = 16 * MEGABYTE
"""Largest file of hashes."""

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


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
    root, recorded = _read_manifest(directory)
    for name, expected in recorded.items():
        _require_listed(directory, name)
        _require_hash(directory / name, _hash_file(directory / name), expected)
    return root


def read_verified(directory: Path, limits: Mapping[str, int]) -> tuple[str, dict[str, bytes]]:
    """The root hash of a directory of a few files, as of `verify_manifest`, and the very bytes of each that
    were hashed.

    `limits` maps every file that the manifest lists to the most bytes that it may have. Raises IntegrityError
    as `verify_manifest` does, and before anything is read for a file that is larger, is a link out of the
    directory, is not listed, or is listed and not in `limits`.
    """
    root, recorded = _read_manifest(directory)
    for name in sorted(limits.keys() ^ recorded.keys()):
        wrong = "does not list" if name in limits else "should not list"
        raise IntegrityError(f"{directory / MANIFEST} {wrong} {name}; write {directory} again")
    for name, limit in limits.items():
        _require_listed(directory, name)
        if not (directory / name).resolve().is_relative_to(directory.resolve()):
            raise IntegrityError(
                f"{directory / name} is a link out of {directory}; put the file itself there"
            )
        require_size(directory / name, limit)
    kept = {}
    for name, limit in limits.items():
        with reading(directory / name, "a file"):
            kept[name] = read_bytes(directory / name, limit)
        _require_hash(directory / name, hashlib.sha256(kept[name]).hexdigest(), recorded[name])
    return root, kept


def _files(directory: Path) -> list[str]:
    every = (path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    return [path for path in every if path != MANIFEST]


def _read_manifest(directory: Path) -> tuple[str, dict[str, str]]:
    """The root hash, and the recorded hash of every listed path."""
    manifest = directory / MANIFEST
    if not directory.is_dir():
        raise IntegrityError(f"{directory} is missing; expected a directory with a {MANIFEST}")
    if not manifest.is_file():
        raise IntegrityError(
            f"{manifest} is missing; without it the content of {directory} cannot be trusted"
        )
    with reading(manifest, "hashes"):
        content = read_bytes(manifest, MANIFEST_BYTES)
    return hashlib.sha256(content).hexdigest(), dict(_parse(manifest, content))


def _require_listed(directory: Path, name: str) -> None:
    if not (directory / name).is_file():
        raise IntegrityError(
            f"{directory / name} is missing; {directory / MANIFEST} lists it. Restore it or write "
            f"{directory} again"
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
    """Pairs of relative path and hash; refuses what `write_manifest` would never have written."""
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
        yield path, match[1]
