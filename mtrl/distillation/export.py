"""From a student to ONNX: one graph with normalisation, task table, mask and clipping inside."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from mtrl.deployment.artefact.export import chunk_graph
from mtrl.errors import IntegrityError

from .folded import FoldedStudent
from .reference import reference_chunk
from .student import Student


def export_onnx(student: Student) -> bytes:
    """The graph: `state` float32 [N, h, D_max], `task` int64 [N] and, when the student has noise, `z`
    float32 [N, Z] in; `chunk` float32 [N, H, A_max] in [-1, 1] out.
    """
    form, network = student.form, student.network
    state = torch.zeros(2, form.network.history, network.mean.shape[1])
    task = torch.zeros(2, dtype=torch.int64)
    inputs = {"state": state, "task": task}
    if form.noise_size:
        inputs["z"] = torch.zeros(2, form.noise_size)
    return chunk_graph(FoldedStudent(student), inputs)


def golden_cases(student: Student, seed: int, per_task: int = 16) -> dict[str, npt.NDArray[np.generic]]:
    """Inputs of every task, extremes among them, and the chunks that torch computes for them.

    `state` [M, h, D_max], `task` [M], `z` [M, Z] (absent when Z = 0), `chunk` [M, H, A_max].
    """
    draws, network, form = np.random.default_rng(seed), student.network, student.form
    mean, scale = network.mean.numpy(), network.scale.numpy()
    task = np.repeat(np.arange(len(mean)), per_task)
    spread = draws.standard_normal((len(task), form.network.history, mean.shape[1]))
    # A quarter of the cases lies far outside the data, where clipping must act alike everywhere.
    spread[::4] *= 20.0
    mask = network.state_mask.numpy()[task][:, None]
    state = ((mean[task][:, None] + scale[task][:, None] * spread) * mask).astype(np.float32)
    cases: dict[str, npt.NDArray[np.generic]] = {"state": state, "task": task}
    z = None
    if form.noise_size:
        cases["z"] = draws.standard_normal((len(task), form.noise_size)).astype(np.float32)
        z = torch.as_tensor(cases["z"])
    with torch.no_grad():
        cases["chunk"] = student(torch.as_tensor(state), torch.as_tensor(task), z).numpy()
    return cases


def require_reference_parity(
    student: Student, cases: Mapping[str, npt.NDArray[np.generic]], tolerance: float = 1e-5
) -> float:
    """Largest difference between torch and the numpy reference; IntegrityError beyond `tolerance`."""
    computed = reference_chunk(student.snapshot(0), cases["state"], cases["task"], cases.get("z"))
    error = float(np.abs(computed - np.asarray(cases["chunk"], dtype=np.float64)).max())
    if not error <= tolerance:
        raise IntegrityError(f"torch and the numpy reference differ by {error:.3g}; expected {tolerance:.0e}")
    return error
