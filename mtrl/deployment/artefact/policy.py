"""The exported graph as a policy: one copy in real time, or many copies in evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError, IntegrityError, SpaceError
from mtrl.reading import reading
from mtrl.rollout import (
    Acting,
    Action,
    ChunkPolicy,
    ChunkSpec,
    Execution,
    Extra,
    FunctionSampler,
    Policy,
    PolicySnapshot,
    PolicyState,
)
from mtrl.spaces import Observation
from mtrl.tasks import TaskSet

from .contents import POLICY_FILE, Artefact
from .graph_process import open_session, require_signature
from .manifest import Manifest

Float32 = npt.NDArray[np.float32]


class ArtefactPolicy:
    """The exported graph behind preallocated arrays: ONNX Runtime, one thread, no spinning.

    Inputs are copied into fixed buffers that the runtime is bound to, so that a call allocates
    nothing of the graph's inputs or output. One instance serves one thread.
    """

    def __init__(self, artefact: Artefact) -> None:
        """Loads the graph from memory; raises IntegrityError when it does not fit the manifest."""
        self.manifest = artefact.manifest
        require_runtime(self.manifest)
        sizes = self.manifest
        self._state = np.zeros((1, sizes.history, sizes.state_size), dtype=np.float32)
        self._task = np.zeros(1, dtype=np.int64)
        self._noise = np.zeros((1, sizes.noise_size), dtype=np.float32)
        self._chunk = np.zeros((1, sizes.chunk, sizes.action_size), dtype=np.float32)
        self._pixels = np.zeros((1, *sizes.pixels), dtype=np.uint8)
        inputs: dict[str, npt.NDArray[Any]] = {"task": self._task}
        if sizes.state_size:
            inputs["state"] = self._state
        if sizes.pixels:
            inputs["pixels"] = self._pixels
        if sizes.noise_size:
            inputs["z"] = self._noise
        with reading(artefact.directory / POLICY_FILE, "a graph of this artefact", "export it again"):
            self._session = open_session(artefact.graph)
            require_signature(self._session, inputs, self._chunk)
        self._binding = self._session.io_binding()
        for name, array in inputs.items():
            self._binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        chunk = self._chunk
        self._binding.bind_output("chunk", "cpu", 0, np.float32, chunk.shape, chunk.ctypes.data)

    def act(
        self,
        state: Float32,
        task_index: int,
        z: Float32 | None = None,
        pixels: npt.NDArray[np.uint8] | None = None,
    ) -> Float32:
        """Plans one chunk.

        `state`: [h, D_max], or [D_max] when h = 1; zero-padded. `z`: [Z], standard normal; None means
        zeros. `pixels`: [C, H, W], where the policy sees them. Returns [H, A_max], a view that the next call
        overwrites. Raises SpaceError for a task that the artefact does not have: a negative index would
        count from the end.
        """
        if not 0 <= task_index < len(self.manifest.tasks):
            last = len(self.manifest.tasks) - 1
            raise SpaceError(f"this artefact has tasks 0 to {last}; got {task_index}")
        self._state[0] = state
        self._task[0] = task_index
        if z is not None:
            self._noise[0] = z
        if pixels is not None:
            self._pixels[0] = pixels
        self._session.run_with_iobinding(self._binding)
        return self._chunk[0]


def artefact_snapshot(artefact: Artefact) -> PolicySnapshot:
    """The verified graph and its manifest as data that any worker can rebuild."""
    graph = np.frombuffer(artefact.graph, dtype=np.uint8)
    return PolicySnapshot("artefact", {"manifest": artefact.manifest.to_json()}, {"graph": graph})


class _Flattened:
    """A policy that sees images: they travel behind the state, so that plans are carried out as of states."""

    extras: tuple[Extra, ...] = ()

    def __init__(self, policy: ChunkPolicy, buckets: Sequence[str]) -> None:
        """`buckets`: in the order of the vector's parts."""
        self._policy, self._buckets = policy, buckets
        self.version = policy.version

    def initial_state(self, count: int) -> PolicyState:
        """The plan's."""
        return self._policy.initial_state(count)

    def act(
        self,
        observation: Observation,
        task_index: npt.NDArray[np.int64],
        state: PolicyState,
        ended: npt.NDArray[np.bool_],
        *,
        acting: Acting,
        generators: Sequence[np.random.Generator],
    ) -> Action:
        """As `ChunkPolicy.act`; every byte of an image becomes a float32 of the same value."""
        parts = [observation[bucket].reshape(len(task_index), -1) for bucket in self._buckets]
        seen: Observation = {"state": np.concatenate(parts, axis=1, dtype=np.float32)}
        return self._policy.act(seen, task_index, state, ended, acting=acting, generators=generators)


def artefact_policy(snapshot: PolicySnapshot, tasks: TaskSet) -> Policy:
    """The entry point `artefact` of the group mtrl.policies: plans for many copies through ONNX Runtime.

    Raises ConfigError when the tasks are not those of the manifest, in its order.
    """
    manifest = Manifest.from_json(str(snapshot.config["manifest"]))
    made_for = tuple(entry.name for entry in manifest.tasks)
    if tasks.names != made_for:
        raise ConfigError(f"the artefact was made for the tasks {made_for}; got {tasks.names}")
    if (shown := tasks.layout.pixels_shape or ()) != manifest.pixels:
        raise ConfigError(f"the artefact sees images {manifest.pixels}; the tasks show {shown}")
    session = open_session(np.asarray(snapshot.tensors["graph"]).tobytes())
    size = manifest.state_size

    def plan(states: Float32, task: npt.NDArray[np.int64], z: Float32) -> Float32:
        if not len(states):
            return np.zeros((0, manifest.chunk, manifest.action_size), dtype=np.float32)
        feeds: dict[str, npt.NDArray[Any]] = {"task": task}
        if manifest.noise_size:
            feeds["z"] = z
        if size:
            feeds["state"] = np.ascontiguousarray(states[:, :, :size])
        if manifest.pixels:
            feeds["pixels"] = states[:, 0, size:].reshape(-1, *manifest.pixels).astype(np.uint8)
        chunk: Float32 = session.run(["chunk"], feeds)[0]
        return chunk

    spec = ChunkSpec(
        manifest.history,
        size + math.prod(manifest.pixels or (0,)),
        manifest.chunk,
        manifest.action_size,
        manifest.noise_size,
        manifest.choices,
    )
    execution = Execution(steps=manifest.execute, noise=manifest.noise)
    policy = ChunkPolicy(FunctionSampler(spec, plan), execution)
    return _Flattened(policy, tasks.layout.buckets) if manifest.pixels else policy


def require_runtime(manifest: Manifest) -> None:
    """Raises IntegrityError for a manifest that needs a newer ONNX Runtime."""
    import onnxruntime as ort

    def numbers(version: str) -> tuple[int, ...]:
        return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())

    if numbers(ort.__version__) < numbers(manifest.minimum_onnxruntime):
        raise IntegrityError(
            f"the artefact needs ONNX Runtime {manifest.minimum_onnxruntime} or newer; "
            f"{ort.__version__} is installed"
        )
