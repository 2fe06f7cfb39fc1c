"""The network of diffusion policies, behaviour cloning and one-step students.

It maps (history of padded states, task, noisy action chunk, noise level) to an action chunk's worth of
numbers: the dimensions of a continuous action, then one for each choice of a discrete one, then those of a
future state where states are planned too. Normalisation, the task table and the action mask are buffers and
parameters of the module, so that an exported graph holds them.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from mtrl.spaces import Layout

from .chunk_transformer import ChunkTransformer
from .config import ChunkShape
from .inverse_dynamics import InverseDynamics
from .normalisation import TaskNormaliser
from .residual import ResidualMLP

STATE_SHARE = 0.5
"""A planned state is standardised, then multiplied by this: the deviation that is assumed of actions."""


class ChunkNetwork(TaskNormaliser):
    """Residual MLP, or transformer, over [standardised history, task embedding, scaled chunk, noise-level
    features].
    """

    state_mask: Tensor
    action_mask: Tensor
    frequencies: Tensor

    def __init__(
        self,
        shape: ChunkShape,
        layout: Layout,
        *,
        plans_states: bool = False,
        reads_quality: bool = False,
        inverse: int = 0,
    ) -> None:
        """`plans_states`: every action has a future state beside it. `reads_quality`: the task embedding is
        moved by how good an episode is. `inverse`: decisions between planned states, from which actions can
        be inferred; 0 where they cannot.
        """
        super().__init__(layout)
        self.shape = shape
        self.choices = layout.discrete_size
        """Columns of an action that belong to discrete tasks, the last ones."""
        self.actions = layout.continuous_size + self.choices
        """Columns of an action, A_max."""
        self.columns = self.actions + (layout.state_size if plans_states else 0)
        """Columns of a chunk's row C: A_max, and D_max where states are planned."""
        tasks, states = layout.task_count, layout.state_size
        self.embedding = nn.Embedding(tasks, shape.embedding)
        flat = shape.chunk * self.columns
        condition = shape.history * states + shape.embedding
        self.torso = (
            ResidualMLP(condition + flat + shape.noise_features, flat, shape.width, shape.blocks)
            if shape.backbone == "mlp"
            else ChunkTransformer(
                condition,
                shape.noise_features,
                shape.chunk,
                self.columns,
                shape.width,
                shape.blocks,
                shape.heads,
            )
        )
        self.quality = nn.Linear(2, shape.embedding, bias=False) if reads_quality else None
        self.register_buffer("state_mask", torch.as_tensor(layout.state_mask).float())
        masks = [layout.continuous_mask, layout.legal_mask, *([layout.state_mask] * plans_states)]
        self.register_buffer("action_mask", torch.as_tensor(np.concatenate(masks, axis=1)).float())
        octaves = torch.arange(shape.noise_features // 2, dtype=torch.float32)
        self.register_buffer("frequencies", 2.0 ** (octaves / 2), persistent=False)
        self.inverse = (
            InverseDynamics(states, shape.embedding, self.actions, inverse, shape.width, shape.blocks)
            if inverse
            else None
        )

    @property
    def noise_size(self) -> int:
        """Length of a flattened chunk, H * C, which is also the length of its noise z."""
        return self.shape.chunk * self.columns

    def condition(self, states: Tensor, task: Tensor, quality: Tensor | None = None) -> Tensor:
        """States [N, h, D_max] and task [N] -> the part of the input that does not change while
        sampling, [N, h * D_max + E]. Standardised states are clipped to 5 deviations. `quality` [N], 0 to 1,
        is NaN where it is hidden, as without it.
        """
        standardised = self.standardise(states, task) * self.state_mask[task][:, None]
        embedded = self.embedding(task)
        if quality is not None and self.quality is not None:
            embedded = embedded + self.quality(_centred(quality))
        return torch.cat([standardised.flatten(1), embedded], dim=1)

    @torch.no_grad()
    def aiming_at(self, quality: float) -> ChunkNetwork:
        """A network without the input that does what this one does at that quality, for every task."""
        assert self.quality is not None, "the network must read a quality"
        found = copy.deepcopy(self)
        found.embedding.weight += self.quality(_centred(torch.tensor([quality])))
        found.quality = None
        return found

    def encode_states(self, states: Tensor, task: Tensor) -> Tensor:
        """States [N, H, D_max] of tasks [N] as columns of a chunk."""
        return STATE_SHARE * self.standardise(states, task) * self.state_mask[task][:, None]

    def decode_states(self, columns: Tensor, task: Tensor) -> Tensor:
        """The inverse."""
        states = self.mean[task][:, None] + self.scale[task][:, None] * columns / STATE_SHARE
        return states * self.state_mask[task][:, None]

    def inferred(self, states: Tensor, planned: Tensor, task: Tensor) -> Tensor:
        """The actions [N, H, A_max] that lead from states [N, D_max] through planned ones, columns
        [N, H, D_max] of a chunk of tasks [N].
        """
        assert self.inverse is not None, "the network must have the head"
        ends = planned[:, : -(-self.shape.chunk // self.inverse.stride)]
        path = torch.cat([self.encode_states(states[:, None], task), ends], dim=1)
        found: Tensor = self.inverse(path, self.embedding(task))[:, : self.shape.chunk]
        return found * self.chunk_mask(task)[:, :, : self.actions]

    def limit(self, chunk: Tensor) -> Tensor:
        """A chunk [N, H, C] with actions in [-1, 1] and states within 5 deviations."""
        actions, states = chunk.tensor_split([self.actions], dim=-1)
        far = STATE_SHARE * self.clip
        return torch.cat([actions.clamp(-1.0, 1.0), states.clamp(-far, far)], dim=-1)

    def chunk_mask(self, task: Tensor) -> Tensor:
        """[N] -> [N, H, C], 1 where the column belongs to the task."""
        return self.action_mask[task][:, None].expand(-1, self.shape.chunk, -1)

    def forward(self, condition: Tensor, task: Tensor, chunk: Tensor, level: Tensor) -> Tensor:
        """Raw output [N, H, C], zero in masked dimensions.

        `condition` from `condition()`; `chunk` [N, H, C], already scaled to about unit size;
        `level` [N], a monotone function of the noise level (EDM: ln(sigma) / 4).
        """
        mask = self.chunk_mask(task)
        # sine and cosine features, frequencies half an octave apart (after Vaswani et al. 2017, section 3.5)
        angles = level[:, None] * self.frequencies
        features = torch.cat([angles.sin(), angles.cos()], dim=1)
        inputs = torch.cat([condition, (chunk * mask).flatten(1), features], dim=1)
        return self.torso(inputs).unflatten(1, (self.shape.chunk, self.columns)) * mask


def _centred(quality: Tensor) -> Tensor:
    """[N] in [0, 1] or NaN -> [N, 2]: from -1 to 1, and whether it is known."""
    known = ~quality.isnan()
    return torch.stack([(2.0 * quality - 1.0).nan_to_num(0.0), known.to(quality)], dim=1)


def log_choices(logits: Tensor, legal: Tensor) -> Tensor:
    """Log-probabilities [..., D] of choices, next to nothing where `legal` [..., D] is 0."""
    return torch.log_softmax(logits + 1e9 * (legal - 1.0), dim=-1)


def bounded(raw: Tensor, mask: Tensor, choices: int) -> Tensor:
    """What acts: raw columns [..., A_max] clipped to [-1, 1], of the last `choices` their softmax; `mask`
    [..., A_max] is 0 in columns of other tasks, where the result is 0 too.
    """
    if not choices:
        return raw.clamp(-1.0, 1.0)
    sizes = [raw.shape[-1] - choices, choices]
    (continuous, logits), (_, legal) = raw.split(sizes, dim=-1), mask.split(sizes, dim=-1)
    return torch.cat([continuous.clamp(-1.0, 1.0), log_choices(logits, legal).exp() * legal], dim=-1)
