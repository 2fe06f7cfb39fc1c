"""Export to ONNX: any torch module, and a policy that is one forward pass already."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from mtrl.errors import IntegrityError, SpaceError
from mtrl.rollout import Acting, Policy
from mtrl.spaces import Layout

OPSET = 17
"""Oldest operator set with LayerNormalization, so that older runtimes on robots can load the graph."""

Cases = dict[str, npt.NDArray[np.generic]]


@runtime_checkable
class Foldable(Protocol):
    """A module with a form for inference that computes the same with fewer operators."""

    def folded(self) -> nn.Module:
        """That form."""


def fold(module: nn.Module) -> nn.Module:
    """The module's folded form, or the module itself where it has none."""
    return module.folded() if isinstance(module, Foldable) else module


class _KnownTask(nn.Module):
    """A module that refuses a task index outside its tasks: ONNX counts a negative one from the end."""

    known: torch.Tensor

    def __init__(self, module: nn.Module, names: Sequence[str], tasks: int) -> None:
        super().__init__()
        self.module = module
        self.place = list(names).index("task")
        self.register_buffer("known", torch.arange(tasks))

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        task = inputs[self.place]
        # beyond the last index, where the look-up fails
        checked = self.known[torch.where(task < 0, len(self.known), task)]
        chunk: torch.Tensor = self.module(*inputs[: self.place], checked, *inputs[self.place + 1 :])
        return chunk


def chunk_graph(module: nn.Module, inputs: Mapping[str, torch.Tensor], tasks: int) -> bytes:
    """The ONNX graph of `module(*inputs.values())`, folded; its output is `chunk`.

    The first axis of every input and of the output is `batch`, any number of rows; the others are fixed.
    `inputs` are examples of two rows each, `task` among them; their values are not kept, except where the
    module branches on them in Python. The graph fails for a task outside 0 to `tasks` - 1.
    """
    file = io.BytesIO()
    folded = fold(module).eval()
    with torch.no_grad():
        sizes = folded(*inputs.values()).shape[1:]
    with warnings.catch_warnings():
        # Only the tracing exporter writes opset 17; it warns of its deprecation and of shape checks, which
        # hold for every number of rows.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        torch.onnx.export(
            _KnownTask(folded, list(inputs), tasks).eval(),
            tuple(inputs.values()),
            file,  # type: ignore[arg-type]  # the stub names paths only; buffers work
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=["chunk"],
            dynamic_axes={name: {0: "batch"} for name in [*inputs, "chunk"]},
        )
    model = onnx.load_from_string(file.getvalue())
    for axis, size in zip(model.graph.output[0].type.tensor_type.shape.dim[1:], sizes, strict=True):
        axis.dim_value = size
    serialised: bytes = model.SerializeToString()
    return serialised


class _OneStepChunk(nn.Module):
    """A controller seen as a plan of one decision from a history of one observation.

    It computes one row where there are none: networks reshape to an axis that is left to be found, and with
    no rows ONNX Runtime divides by zero there and ends the process.
    """

    def __init__(self, controller: nn.Module) -> None:
        super().__init__()
        self.controller = controller

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        *observed, task = inputs
        # as a tensor, since a traced graph keeps numbers of Python as they are
        rows = torch._shape_as_tensor(task)[0]
        missing = (1 - rows).clamp(min=0)
        buckets = [bucket.squeeze(1) if bucket.dim() == 3 else bucket for bucket in observed]
        filled = [
            torch.cat([bucket, torch.zeros(missing, *bucket.shape[1:], dtype=bucket.dtype)])  # type: ignore[call-overload]
            for bucket in buckets
        ]
        tasks = torch.cat([task, torch.zeros(missing, dtype=task.dtype)])  # type: ignore[call-overload]
        action: torch.Tensor = self.controller(*filled, tasks)
        return action[:rows].unsqueeze(1)


def controller_graph(controller: nn.Module, layout: Layout) -> bytes:
    """The artefact's graph of `controller(state [N, D_max], pixels [N, C, H, W], task [N])`, whose answer is
    [N, A_max] with a column more for every choice; of state and pixels those that the layout has.

    `state` float32 [N, 1, D_max], `pixels` uint8 [N, C, H, W] and `task` int64 [N] in, `chunk` float32
    [N, 1, A_max + choices] out.
    """
    examples: dict[str, torch.Tensor] = {}
    if layout.state_size:
        examples["state"] = torch.zeros(2, 1, layout.state_size)
    if layout.pixels_shape is not None:
        examples["pixels"] = torch.zeros(2, *layout.pixels_shape, dtype=torch.uint8)
    # equal tasks, so that no shortcut for a batch of all tasks in order becomes part of the graph
    examples["task"] = torch.zeros(2, dtype=torch.int64)
    return chunk_graph(_OneStepChunk(controller), examples, layout.task_count)


def controller_cases(
    controller: nn.Module,
    states: Sequence[npt.NDArray[np.floating]],
    layout: Layout,
    seed: int,
    per_task: int = 16,
    images: Sequence[npt.NDArray[np.uint8]] = (),
) -> Cases:
    """Golden inputs of every task, extremes among them, and the actions that torch computes for them.

    `states[k]` [M_k, D_k] are visited states of task k in its native length; every fourth case lies far
    outside them, where clipping must be the same everywhere. `images[k]` [M_k, C, H, W] are visited images,
    every fourth of which is noise. Of a task without one of them the array is empty. Returns `state`
    [M, 1, D_max], `pixels` [M, C, H, W], `task` [M] and `chunk` [M, 1, A_max + choices]. Raises SpaceError
    for a controller whose actions are not finite, not within [-1, 1] or of another shape.
    """
    draws = np.random.default_rng(seed)
    task = np.repeat(np.arange(layout.task_count), per_task)
    cases: Cases = {}
    if layout.state_size:
        state = np.zeros((len(task), 1, layout.state_size), dtype=np.float32)
        for k, seen in enumerate(states):
            if not len(seen):
                continue
            rows = _spread(seen, per_task).astype(np.float64)
            rows[::4] += 20.0 * (seen.std(axis=0) + 1.0) * draws.standard_normal(rows[::4].shape)
            state[task == k, 0, : rows.shape[1]] = rows
        cases["state"] = state
    if layout.pixels_shape is not None:
        pixels = np.zeros((len(task), *layout.pixels_shape), dtype=np.uint8)
        for k, shown in enumerate(images):
            if not len(shown):
                continue
            rows = _spread(shown, per_task)
            rows[::4] = draws.integers(0, 256, rows[::4].shape, dtype=np.uint8)
            pixels[task == k] = rows
        cases["pixels"] = pixels
    inputs = [torch.as_tensor(values[:, 0] if name == "state" else values) for name, values in cases.items()]
    with torch.no_grad():
        action = controller(*inputs, torch.as_tensor(task)).numpy()
    expected = (len(task), layout.continuous_size + layout.discrete_size)
    if action.shape != expected or action.dtype != np.float32:
        raise SpaceError(
            f"a controller returns float32 actions {list(expected)}; got {action.dtype} {list(action.shape)}"
        )
    wrong = ~(np.abs(action) <= 1.0)
    if wrong.any():
        raise SpaceError(
            f"a controller returns finite actions in [-1, 1]; {int(wrong.sum())} of {wrong.size} numbers are "
            f"none, the first {action[wrong][0]:.3g} for task {task[wrong.any(axis=1)][0]}"
        )
    return {**cases, "task": task, "chunk": action[:, None]}


def _spread(seen: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """`count` rows, spread over those that were seen."""
    return np.array(seen[np.linspace(0, len(seen) - 1, count).round().astype(np.int64)])


def require_policy_parity(policy: Policy, cases: Cases, layout: Layout, tolerance: float = 1e-5) -> float:
    """Largest difference between the controller and the evaluated policy, without exploration.

    Compares each task's own action dimensions, and of a discrete task the choice that has the highest column,
    another counting as 1. Raises IntegrityError beyond `tolerance`.
    """
    task = np.asarray(cases["task"], dtype=np.int64)
    observation = layout.zeros(len(task))
    for name in observation:
        observation[name][:] = cases[name][:, 0] if name == "state" else cases[name]
    action = policy.act(
        observation,
        task,
        policy.initial_state(len(task)),
        np.ones(len(task), dtype=np.bool_),
        acting=Acting(),
        generators=[np.random.default_rng(0) for _ in task],
    )
    columns = np.asarray(cases["chunk"], dtype=np.float32)[:, 0]
    difference = np.abs(action.continuous - columns[:, : layout.continuous_size])
    error = float((difference * layout.continuous_mask[task]).max(initial=0.0))
    if layout.discrete_size:
        others = columns[:, layout.continuous_size :].argmax(axis=1) != action.discrete
        error = max(error, float((others & layout.discrete_tasks[task]).any()))
    if not error <= tolerance:
        raise IntegrityError(
            f"the controller differs from the policy that was evaluated by {error:.3g}, more than "
            f"{tolerance:.0e}; its agent's `controller` and `policy` must act alike"
        )
    return error
