"""Writing and verifying an artefact's directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.atomic import atomic_directory
from mtrl.errors import IntegrityError
from mtrl.integrity import write_manifest

from .contents import GOLDEN_FILE, POLICY_FILE, Artefact, open_artefact
from .golden import examine, read_golden
from .manifest import MANIFEST_FILE, Manifest
from .policy import require_runtime

METADATA_KEY = "mtrl.manifest"
PARITY_TOLERANCE = 1e-5
"""Largest absolute difference between this machine's outputs and the golden ones."""


@dataclass(frozen=True)
class VerificationReport:
    """An artefact that verified."""

    contents: Artefact
    """The bytes that were verified, which are the ones to act with."""
    golden_error: float
    """Largest absolute difference to the golden outputs."""

    @property
    def artefact(self) -> str:
        """Root hash, the artefact's id."""
        return self.contents.root

    @property
    def manifest(self) -> Manifest:
        """The manifest, read and checked."""
        return self.contents.manifest


def write_artefact(
    directory: Path,
    onnx_bytes: bytes,
    manifest: Manifest,
    golden: Mapping[str, npt.NDArray[Any]],
    overwrite: bool = False,
) -> str:
    """Writes and verifies an artefact, whole or not at all; returns its root hash.

    `golden`: `state` [M, h, D_max], `task` [M], `z` [M, Z] (when Z > 0) and `chunk` [M, H, A_max] as
    the exporting framework computed it. Raises ExistsError for a directory that exists, unless
    `overwrite`, and IntegrityError when the graph does not fit the manifest or the golden outputs: an
    artefact that does not verify is never left behind.
    """
    with atomic_directory(directory, overwrite) as partial:
        (partial / POLICY_FILE).write_bytes(_with_metadata(onnx_bytes, manifest))
        (partial / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
        arrays: dict[str, Any] = dict(golden)
        np.savez_compressed(partial / GOLDEN_FILE, **arrays)
        root = write_manifest(partial)
        verify(partial)
    return root


def verify(directory: Path) -> VerificationReport:
    """Checks hashes, schema, the graph's signature and golden parity on this machine.

    Raises IntegrityError naming the file at fault.
    """
    contents = open_artefact(directory)
    require_runtime(contents.manifest)
    found, graph = examine(contents, read_golden(contents)), directory / POLICY_FILE
    named = found["metadata"].get(METADATA_KEY, "")
    if Manifest.from_json(named, str(graph)) != contents.manifest:
        raise IntegrityError(
            f"{graph} was exported with another manifest than {MANIFEST_FILE}; export the artefact again"
        )
    error = np.inf if found["difference"] is None else float(found["difference"])
    if not error <= PARITY_TOLERANCE:
        raise IntegrityError(
            f"{graph} differs from {GOLDEN_FILE} by {error:.3g}, more than {PARITY_TOLERANCE:g}: this "
            "machine would act differently from the policy that was evaluated"
        )
    return VerificationReport(contents, error)


def _with_metadata(onnx_bytes: bytes, manifest: Manifest) -> bytes:
    # The graph names its own manifest, so that files of two artefacts cannot be mixed.
    import onnx

    model = onnx.load_from_string(onnx_bytes)
    kept = {prop.key: prop.value for prop in model.metadata_props}
    onnx.helper.set_model_props(model, {**kept, METADATA_KEY: manifest.to_json()})
    serialised: bytes = model.SerializeToString()
    return serialised
