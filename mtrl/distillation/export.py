"""From a student to ONNX: one graph with normalisation, task table, mask and clipping inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mtrl.deployment.artefact.export import chunk_graph
from mtrl.errors import IntegrityError, UnsupportedError
from mtrl.rollout import ChunkPolicy, ChunkSpec, Execution, Policy
from mtrl.spaces import Layout, Moments

Cases = Mapping[str, npt.NDArray[np.generic]]


@runtime_checkable
class ChunkModule(Protocol):
    """A sampler of chunks that is one forward pass of a torch module: what is exported as a student.

    The module itself maps `state` [N, h, D_max], `task` [N] and, when Z > 0, `z` [N, Z] to [N, H, A_max]. One
    that is also `mtrl.deployment.artefact.export.Foldable` is exported folded.
    """

    @property
    def spec(self) -> ChunkSpec:
        """The sizes."""

    @property
    def execution(self) -> Execution:
        """How chunks are carried out."""

    @property
    def moments(self) -> Moments:
        """Of the states that it learned from, [K, D_max]."""

    def reference(
        self,
        state: npt.NDArray[np.generic],
        task: npt.NDArray[np.generic],
        z: npt.NDArray[np.generic] | None,
    ) -> npt.NDArray[np.float64]:
        """The same map by another computation, with which exported graphs are compared."""


def chunk_module_of(policy: Policy) -> ChunkModule:
    """What of a policy is exported; raises UnsupportedError where it is not one forward pass."""
    sampler = policy.sampler if isinstance(policy, ChunkPolicy) else policy
    if not isinstance(sampler, ChunkModule) or not isinstance(sampler, nn.Module):
        raise UnsupportedError(
            f"a student is exported as one torch module (mtrl.distillation.ChunkModule); got a policy of "
            f"{type(sampler).__name__}. Distil with another distillation.method"
        )
    return sampler


def export_onnx(student: ChunkModule) -> bytes:
    """The graph: `state` float32 [N, h, D_max], `task` int64 [N] and, when the student has noise, `z`
    float32 [N, Z] in; `chunk` float32 [N, H, A_max] in [-1, 1] out.
    """
    assert isinstance(student, nn.Module), "see chunk_module_of"
    spec = student.spec
    state = torch.zeros(2, spec.history, spec.state_size)
    inputs = {"state": state, "task": torch.zeros(2, dtype=torch.int64)}
    if spec.noise_size:
        inputs["z"] = torch.zeros(2, spec.noise_size)
    return chunk_graph(student, inputs, len(student.moments.mean))


def golden_cases(
    student: ChunkModule, layout: Layout, seed: int, per_task: int = 16
) -> dict[str, npt.NDArray[np.generic]]:
    """Inputs of every task, extremes among them, and the chunks that torch computes for them.

    `state` [M, h, D_max], `task` [M], `z` [M, Z] (absent when Z = 0), `chunk` [M, H, A_max].
    """
    assert isinstance(student, nn.Module), "see chunk_module_of"
    draws, spec, moments = np.random.default_rng(seed), student.spec, student.moments
    task = np.repeat(np.arange(layout.task_count), per_task)
    spread = draws.standard_normal((len(task), spec.history, spec.state_size))
    # a quarter of the cases is far outside the data, where clipping must act alike everywhere
    spread[::4] *= 20.0
    state = moments.mean[task][:, None] + moments.scale[task][:, None] * spread
    state = (state * layout.state_mask[task][:, None]).astype(np.float32)
    cases: dict[str, npt.NDArray[np.generic]] = {"state": state, "task": task}
    if spec.noise_size:
        cases["z"] = draws.standard_normal((len(task), spec.noise_size)).astype(np.float32)
    with torch.no_grad():
        cases["chunk"] = student(*(torch.as_tensor(values) for values in cases.values())).numpy()
    return cases


def require_reference_parity(student: ChunkModule, cases: Cases, tolerance: float = 1e-5) -> float:
    """Largest difference between torch and the student's reference; IntegrityError beyond `tolerance`."""
    computed = student.reference(cases["state"], cases["task"], cases.get("z"))
    error = float(np.abs(computed - np.asarray(cases["chunk"], dtype=np.float64)).max())
    if not error <= tolerance:
        raise IntegrityError(f"torch and the numpy reference differ by {error:.3g}; expected {tolerance:.0e}")
    return error
