"""An artefact in memory: the bytes that were hashed, which are the only ones that are used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    """Reads an artefact once, hashes what was read, and requires a graph that is whole in its own file.

    Files that `manifest.sha256` does not list are never read. Raises IntegrityError naming the file at fault.
    """
    if not directory.is_dir():
        raise IntegrityError(f"{directory} is not a directory; an artefact is one, made by `mtrl export`")
    root, files = read_verified(directory, BYTES)
    manifest = Manifest.from_json(files[MANIFEST_FILE], str(directory / MANIFEST_FILE))
    graph = files[POLICY_FILE]
    _require_whole(directory / POLICY_FILE, graph, manifest)
    return Artefact(directory, root, manifest, graph, files[GOLDEN_FILE])


def _require_whole(path: Path, graph: bytes, manifest: Manifest) -> None:
    """The graph holds its own weights and uses ONNX's own operators, of the stated set."""
    # Imported here: listing robots and writing manifests must not load it.
    import onnx

    try:
        model = onnx.load_from_string(graph)
    except Exception as error:  # the parser of protocol buffers raises classes of its own
        raise IntegrityError(f"{path} is not an ONNX graph: {error}") from error
    for message in _messages(model):
        if isinstance(message, onnx.TensorProto) and (message.data_location or message.external_data):
            raise IntegrityError(
                f"{path} keeps the tensor {message.name!r} in another file, which the artefact's hashes do "
                "not cover; export it with its weights inside"
            )
    operators = [(item.domain, item.version) for item in model.opset_import]
    if operators != [("", manifest.opset)]:
        raise IntegrityError(
            f"{path} should use ONNX's own operator set {manifest.opset} alone, as {MANIFEST_FILE} says; "
            f"got {operators}"
        )


def _messages(message: Any) -> Iterator[Any]:  # noqa: ANN401 - generated classes
    """A protocol buffer and all that it contains, however deep."""
    yield message
    for field_, value in message.ListFields():
        if field_.message_type is not None:
            for inner in (value,) if hasattr(value, "ListFields") else value:
                yield from _messages(inner)
