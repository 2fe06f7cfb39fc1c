"""The artefact: one directory that holds a deployable policy, hashed, without a single pickle.

`policy.onnx` (normalisation, conditioning and squashing inside the graph), `manifest.json`,
`golden.npz` (inputs and the outputs that the exporting framework gave) and `manifest.sha256`, whose
own hash is the artefact's id.

Graph: `state` float32 [N, h, D_max], `task` int64 [N], `z` float32 [N, Z] (absent when Z = 0) to
`chunk` float32 [N, H, A_max] in [-1, 1].
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import IntegrityError
from mtrl.integrity import MANIFEST as HASHES
from mtrl.integrity import atomic_directory, verify_manifest, write_manifest

from .manifest import Manifest

POLICY_FILE = "policy.onnx"
MANIFEST_FILE = "manifest.json"
GOLDEN_FILE = "golden.npz"
METADATA_KEY = "mtrl.manifest"
PARITY_TOLERANCE = 1e-5
"""Largest absolute difference between this machine's outputs and the golden ones."""

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class VerificationReport:
    """What `verify` established."""

    artefact: str
    """Root hash, the artefact's id."""
    manifest: Manifest
    """The manifest, read and checked."""
    golden_pairs: int
    """Number of golden inputs compared."""
    golden_error: float
    """Largest absolute difference to the golden outputs."""


class ArtefactPolicy:
    """The exported graph behind preallocated arrays: ONNX Runtime, one thread, no spinning.

    Inputs are copied into fixed buffers that the runtime is bound to, so that a call allocates
    nothing of the graph's inputs or output. One instance serves one thread.
    """

    def __init__(self, directory: Path, manifest: Manifest | None = None) -> None:
        """Loads the graph; raises IntegrityError when it does not fit the manifest.

        Hashes are `verify`'s business: call that first for a directory that came from elsewhere.
        """
        # Imported here: listing robots and writing manifests must not cost the runtime's start.
        import onnxruntime as ort

        self.manifest = manifest if manifest is not None else read_manifest(directory)
        _refuse_old_runtime(self.manifest, str(ort.__version__))
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        # A spinning worker would burn the core that the robot's own processes need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 3
        path = directory / POLICY_FILE
        try:
            self._session = ort.InferenceSession(
                str(path), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime raises a dozen unrelated classes
            raise IntegrityError(f"{path} does not load in ONNX Runtime: {error}") from error
        sizes = self.manifest
        self._state = np.zeros((1, sizes.history, sizes.state_size), dtype=np.float32)
        self._task = np.zeros(1, dtype=np.int64)
        self._noise = np.zeros((1, sizes.noise_size), dtype=np.float32)
        self._chunk = np.zeros((1, sizes.chunk, sizes.action_size), dtype=np.float32)
        self._refuse_foreign_graph(path)
        self._binding = self._bind()

    def act(self, state: Float32, task_index: int, z: Float32 | None = None) -> Float32:
        """Plans one chunk.

        `state`: [h, D_max], or [D_max] when h = 1; zero-padded. `z`: [Z], standard normal; None means
        zeros. Returns [H, A_max], a view that the next call overwrites.
        """
        self._state[0] = state
        self._task[0] = task_index
        if z is not None:
            self._noise[0] = z
        self._session.run_with_iobinding(self._binding)
        return self._chunk[0]

    def metadata(self) -> Mapping[str, str]:
        """Key-value pairs stored in the graph itself."""
        found: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        return found

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        arrays: dict[str, npt.NDArray[Any]] = {"state": self._state, "task": self._task}
        if self.manifest.noise_size:
            arrays["z"] = self._noise
        return arrays

    def _bind(self) -> Any:  # noqa: ANN401 - onnxruntime is untyped
        binding = self._session.io_binding()
        for name, array in self._arrays().items():
            binding.bind_input(name, "cpu", 0, array.dtype.type, list(array.shape), array.ctypes.data)
        chunk = self._chunk
        binding.bind_output("chunk", "cpu", 0, chunk.dtype.type, list(chunk.shape), chunk.ctypes.data)
        return binding

    def _refuse_foreign_graph(self, path: Path) -> None:
        types = {"float32": "tensor(float)", "int64": "tensor(int64)"}
        expected = {name: (types[str(a.dtype)], a.shape[1:]) for name, a in self._arrays().items()}
        _compare_signature(path, "input", self._session.get_inputs(), expected)
        output = {"chunk": ("tensor(float)", self._chunk.shape[1:])}
        _compare_signature(path, "output", self._session.get_outputs(), output)


def read_manifest(directory: Path) -> Manifest:
    """The manifest alone, without hashing anything; IntegrityError when there is none to read."""
    path = directory / MANIFEST_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{path} cannot be read ({error}); is {directory} an artefact?") from error
    return Manifest.from_json(text, str(path))


def write_artefact(
    directory: Path,
    onnx_bytes: bytes,
    manifest: Manifest,
    golden: Mapping[str, npt.NDArray[Any]],
    overwrite: bool = False,
) -> str:
    """Writes and verifies an artefact, whole or not at all; returns its root hash.

    `golden`: `state` [M, h, D_max], `task` [M], `z` [M, Z] (when Z > 0) and `chunk` [M, H, A_max] as
    the exporting framework computed it. Raises ExistsError when the directory exists and overwriting
    was not asked for, IntegrityError when the graph does not fit the manifest or misses the golden
    outputs: an artefact that would not verify is never left behind.
    """
    with atomic_directory(directory, overwrite) as partial:
        (partial / POLICY_FILE).write_bytes(_with_metadata(onnx_bytes, manifest))
        (partial / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
        arrays: dict[str, Any] = {name: np.asarray(array) for name, array in golden.items()}
        np.savez_compressed(partial / GOLDEN_FILE, **arrays)
        root = write_manifest(partial)
        verify(partial)
    return root


def verify(directory: Path) -> VerificationReport:
    """Hashes, schema, the graph's signature and golden parity on this machine.

    Raises IntegrityError naming the file at fault.
    """
    if not directory.is_dir():
        raise IntegrityError(f"{directory} is not a directory; an artefact is one, made by `mtrl export`")
    root = verify_manifest(directory)
    listed = {line[66:] for line in (directory / HASHES).read_text(encoding="utf-8").splitlines()}
    for needed in (POLICY_FILE, MANIFEST_FILE, GOLDEN_FILE):
        if needed not in listed:
            raise IntegrityError(f"{directory / HASHES} does not list {needed}; export the artefact again")
    manifest = read_manifest(directory)
    policy = ArtefactPolicy(directory, manifest)
    if policy.metadata().get(METADATA_KEY) != manifest.to_json():
        raise IntegrityError(
            f"{directory / POLICY_FILE} was exported with another manifest than {MANIFEST_FILE}; "
            "export the artefact again"
        )
    golden = read_golden(directory, manifest)
    error = golden_error(policy, golden)
    if not error <= PARITY_TOLERANCE:
        raise IntegrityError(
            f"{directory / POLICY_FILE} differs from {GOLDEN_FILE} by {error:.3g}, more than "
            f"{PARITY_TOLERANCE:g}: this machine would act differently from the policy that was evaluated"
        )
    return VerificationReport(root, manifest, len(golden["chunk"]), error)


def read_golden(directory: Path, manifest: Manifest) -> dict[str, npt.NDArray[Any]]:
    """The golden arrays, with their shapes checked against the manifest."""
    path = directory / GOLDEN_FILE
    try:
        with np.load(path, allow_pickle=False) as archive:
            golden = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise IntegrityError(f"{path} cannot be read: {error}") from error
    count = len(golden["chunk"]) if "chunk" in golden else 0
    expected = {
        "state": (count, manifest.history, manifest.state_size),
        "task": (count,),
        "chunk": (count, manifest.chunk, manifest.action_size),
    }
    if manifest.noise_size:
        expected["z"] = (count, manifest.noise_size)
    found = {name: array.shape for name, array in golden.items()}
    if count == 0 or found != expected:
        raise IntegrityError(f"{path} should hold arrays of shapes {expected}, at least one row; got {found}")
    return golden


def golden_error(policy: ArtefactPolicy, golden: Mapping[str, npt.NDArray[Any]]) -> float:
    """Largest absolute difference between the policy and the golden outputs; infinite for a NaN."""
    worst = 0.0
    noise = golden.get("z")
    for row, chunk in enumerate(golden["chunk"]):
        z = None if noise is None else noise[row]
        error = np.abs(policy.act(golden["state"][row], int(golden["task"][row]), z) - chunk).max()
        worst = max(worst, float(error) if np.isfinite(error) else np.inf)
    return worst


def _with_metadata(onnx_bytes: bytes, manifest: Manifest) -> bytes:
    # The graph names its own manifest, so that files of two artefacts cannot be mixed.
    import onnx

    model = onnx.load_from_string(onnx_bytes)
    kept = {prop.key: prop.value for prop in model.metadata_props}
    onnx.helper.set_model_props(model, {**kept, METADATA_KEY: manifest.to_json()})
    serialised: bytes = model.SerializeToString()
    return serialised


def _compare_signature(
    path: Path,
    kind: str,
    nodes: Any,  # noqa: ANN401 - onnxruntime is untyped
    expected: Mapping[str, tuple[str, tuple[int, ...]]],
) -> None:
    found = {node.name: (node.type, tuple(node.shape[1:])) for node in nodes}
    fits = found.keys() == expected.keys() and all(
        found[name][0] == kind_of
        and len(found[name][1]) == len(shape)
        # a symbolic dimension is a string and fits any size
        and all(
            isinstance(have, str) or have == want for have, want in zip(found[name][1], shape, strict=True)
        )
        for name, (kind_of, shape) in expected.items()
    )
    if not fits:
        raise IntegrityError(
            f"{path} does not fit its manifest: without the first axis, expected {kind}s "
            f"{dict(expected)}, got {found}"
        )


def _refuse_old_runtime(manifest: Manifest, installed: str) -> None:
    def numbers(version: str) -> tuple[int, ...]:
        return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())

    if numbers(installed) < numbers(manifest.minimum_onnxruntime):
        raise IntegrityError(
            f"the artefact needs ONNX Runtime {manifest.minimum_onnxruntime} or newer; "
            f"{installed} is installed"
        )
