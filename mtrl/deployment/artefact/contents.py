"""An artefact in memory: the bytes that were hashed, which are the only ones that are used."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mtrl.errors import IntegrityError
from mtrl.integrity import read_verified
from mtrl.reading import JSON_BYTES, MEGABYTE

from .manifest import MANIFEST_FILE, Manifest

POLICY_FILE = "policy.onnx"
GOLDEN_FILE = "golden.npz"
BYTES = {POLICY_FILE: 512 * MEGABYTE, MANIFEST_FILE: JSON_BYTES, GOLDEN_FILE: 64 * MEGABYTE}
"""Every file of an artefact, and the most bytes that it may have."""


@dataclass(frozen=True)
class Artefact:
    """Every byte of an artefact that acts; nothing of it is read from the disk again."""

    directory: Path
    """Origin, for messages."""
    root: str
    """Root hash, the artefact's id."""
    manifest: Manifest
    """The manifest, read and checked."""
    graph: bytes = field(repr=False)
    """`policy.onnx`."""
    golden: bytes = field(default=b"", repr=False)
    """`golden.npz`."""


def open_artefact(directory: Path) -> Artefact:
    """Reads an artefact once and hashes what was read; nothing of the graph is looked at.

    Files that `manifest.sha256` does not list are never read. Raises IntegrityError naming the file at fault.
    """
    if not directory.is_dir():
        raise IntegrityError(f"{directory} is not a directory; an artefact is one, made by `mtrl export`")
    root, files = read_verified(directory, BYTES)
    manifest = Manifest.from_json(files[MANIFEST_FILE], str(directory / MANIFEST_FILE))
    return Artefact(directory, root, manifest, files[POLICY_FILE], files[GOLDEN_FILE])
