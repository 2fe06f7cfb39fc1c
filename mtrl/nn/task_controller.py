"""A task network without exploration, as one module that exporters can trace."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mtrl.spaces import Layout

from .encoders import ObservationEncoder
from .task_network import TaskNetwork


class TaskController(nn.Module):
    """state [N, D_max], pixels [N, C, H, W], task [N] -> [N, A_max + choices], of state and pixels those that
    the layout has: tanh of the mean action, then the probability of every choice; 0 where a task has neither.

    Branches that depend on the data are left out, so that the graph is the same for every input.
    """

    mask: Tensor
    legal: Tensor
    filled: Tensor

    def __init__(self, observer: ObservationEncoder, network: TaskNetwork, layout: Layout) -> None:
        """Shares the weights. The network's "continuous" output begins with the mean before the tanh,
        "discrete" holds logits.
        """
        super().__init__()
        self.observer, self.network, self.layout = observer, network, layout
        self.register_buffer("mask", torch.from_numpy(layout.continuous_mask.astype(np.float32)))
        self.register_buffer("legal", torch.from_numpy(layout.legal_mask.astype(np.float32)))
        has = [[bucket in spec.buckets for bucket in layout.buckets] for spec in layout.observations]
        self.register_buffer("filled", torch.from_numpy(np.array(has, dtype=np.float32)))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Each row is computed as one sample of its own task."""
        *observed, task = inputs
        parts = []
        for column, (bucket, values) in enumerate(zip(self.layout.buckets, observed, strict=True)):
            if bucket == "state":
                part = self.observer.standardise(values, task).unsqueeze(1)
            else:
                assert self.observer.pixels is not None, "a layout with pixels has their encoder"
                part = self.observer.pixels(values.unsqueeze(1))
            parts.append(part * self.filled[task, column][:, None, None])
        hidden = self.network.torso(torch.cat(parts, dim=-1), task)
        found = []
        if "continuous" in self.network.outputs:
            raw = self.network.read("continuous", hidden, task).squeeze(1)
            found.append(torch.tanh(raw[:, : self.layout.continuous_size]) * self.mask[task])
        if "discrete" in self.network.outputs:
            logits = self.network.read("discrete", hidden, task).squeeze(1)
            found.append(legal_shares(logits, self.legal[task]))
        return torch.cat(found, dim=-1)


def legal_shares(logits: Tensor, legal: Tensor) -> Tensor:
    """Probabilities [N, n] of the choices that are legal [N, n], 0 for others; a row without any is 0."""
    return torch.softmax(logits - 1e9 * (1.0 - legal), dim=-1) * legal
