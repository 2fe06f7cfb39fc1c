"""The student in numpy: an independent oracle for exported graphs, no torch and no runtime needed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from mtrl.nn import ChunkShape

from .teacher import FirstStep

Array = npt.NDArray[np.float64]


def reference_chunk(
    tensors: Mapping[str, npt.NDArray[np.generic]],
    shape: ChunkShape,
    columns: tuple[int, int],
    first: FirstStep,
    state: npt.NDArray[np.generic],
    task: npt.NDArray[np.generic],
    z: npt.NDArray[np.generic] | None,
) -> Array:
    """state [N, h, D_max], task [N], z [N, Z] or None -> chunk [N, H, A_max], in float64; `tensors` are
    those of the student's snapshot. `columns`: those of an action, of which the last are probabilities of
    choices, and how many these are.
    """
    weights = {name: np.asarray(v, dtype=np.float64) for name, v in tensors.items()}
    rows = np.asarray(task, dtype=np.int64)
    mean, scale = weights["network.mean"][rows][:, None], weights["network.scale"][rows][:, None]
    standardised = np.clip((np.asarray(state, dtype=np.float64) - mean) / scale, -5.0, 5.0)
    standardised = standardised * weights["network.state_mask"][rows][:, None]
    action_mask = np.repeat(weights["network.action_mask"][rows][:, None], shape.chunk, axis=1)
    noise = (
        np.zeros_like(action_mask) if z is None else np.asarray(z).reshape(action_mask.shape) * action_mask
    )
    octaves = np.arange(shape.noise_features // 2)
    angles = np.full((len(rows), 1), first.level) * 2.0 ** (octaves / 2)
    inputs = np.concatenate(
        [
            standardised.reshape(len(rows), -1),
            weights["network.embedding.weight"][rows],
            first.scale * noise.reshape(len(rows), -1),
            np.sin(angles),
            np.cos(angles),
        ],
        axis=1,
    )
    raw = _residual_mlp(weights, inputs, shape.blocks).reshape(action_mask.shape) * action_mask
    actions, choices = columns
    found = (first.skip * noise + first.gain * raw)[:, :, :actions]
    action_mask = action_mask[:, :, :actions]
    continuous, logits = np.split(found, [found.shape[2] - choices], axis=2)
    likely = np.exp(logits - logits.max(axis=2, keepdims=True, initial=-np.inf))
    likely *= action_mask[:, :, action_mask.shape[2] - choices :]
    total = likely.sum(axis=2, keepdims=True)
    chosen = np.divide(likely, total, out=np.zeros_like(likely), where=total > 0)
    return np.concatenate([np.clip(continuous, -1.0, 1.0), chosen], axis=2)


def _residual_mlp(weights: dict[str, Array], inputs: Array, blocks: int) -> Array:
    prefix = "network.torso"
    hidden = _linear(weights, f"{prefix}.enter", inputs)
    for block in range(blocks):
        name = f"{prefix}.blocks.{block}"
        inner = _linear(weights, f"{name}.expand", _layer_norm(weights, f"{name}.norm", hidden))
        hidden = hidden + _linear(weights, f"{name}.contract", _silu(inner))
    return _linear(weights, f"{prefix}.leave", _silu(_layer_norm(weights, f"{prefix}.norm", hidden)))


def _linear(weights: dict[str, Array], name: str, inputs: Array) -> Array:
    return inputs @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _layer_norm(weights: dict[str, Array], name: str, inputs: Array) -> Array:
    centred = inputs - inputs.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _silu(inputs: Array) -> Array:
    return inputs / (1.0 + np.exp(-inputs))
