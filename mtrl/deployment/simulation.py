"""An artefact behind the policy contract, so that what will fly is what is evaluated in simulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError
from mtrl.rollout import ChunkPolicy, Execution, PolicySnapshot
from mtrl.tasks import TaskSet

from .artefact import POLICY_FILE, read_manifest
from .manifest import Manifest


def artefact_snapshot(directory: Path) -> PolicySnapshot:
    """The graph and its manifest as data that any worker can rebuild; verify the directory first."""
    graph = np.frombuffer((directory / POLICY_FILE).read_bytes(), dtype=np.uint8)
    return PolicySnapshot("artefact", {"manifest": read_manifest(directory).to_json()}, {"graph": graph})


def artefact_policy(snapshot: PolicySnapshot, tasks: TaskSet) -> ChunkPolicy:
    """The entry point `artefact` of the group mtrl.policies: plans for many copies through ONNX Runtime.

    Raises ConfigError when the tasks are not those of the manifest, in its order.
    """
    import onnxruntime as ort

    manifest = Manifest.from_json(str(snapshot.config["manifest"]))
    made_for = tuple(entry.name for entry in manifest.tasks)
    if tasks.names != made_for:
        raise ConfigError(f"the artefact was made for the tasks {made_for}; got {tasks.names}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    graph = np.asarray(snapshot.tensors["graph"]).tobytes()
    session = ort.InferenceSession(graph, sess_options=options, providers=["CPUExecutionProvider"])

    def plan(
        states: npt.NDArray[np.float32], task: npt.NDArray[np.int64], z: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        feeds = {"state": states, "task": task} | ({"z": z} if manifest.noise_size else {})
        chunk: npt.NDArray[np.float32] = session.run(["chunk"], feeds)[0]
        return chunk

    return ChunkPolicy(
        plan,
        history=manifest.history,
        state_size=manifest.state_size,
        chunk=manifest.chunk,
        actions=manifest.action_size,
        noise_size=manifest.noise_size,
        execution=Execution(steps=manifest.execute, noise=manifest.noise),
    )
