"""Weights of modules: averaged, copied from a parent, and as arrays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mtrl.errors import ConfigError


@torch.no_grad()
def update_average(average: nn.Module, source: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * source, buffers copied."""
    get_ema_multi_avg_fn(decay)(list(average.parameters()), list(source.parameters()), None)
    for averaged, buffer in zip(average.buffers(), source.buffers(), strict=True):
        averaged.copy_(buffer)


def begin_as(network: nn.Module, parent: nn.Module) -> None:
    """Copies every weight and buffer of a parent; raises ConfigError that names a difference in shape."""
    theirs, ours = parent.state_dict(), network.state_dict()
    for name in [*ours, *theirs]:
        expected, found = (
            str(tuple(state[name].shape)) if name in state else "absent" for state in (ours, theirs)
        )
        if expected != found:
            raise ConfigError(
                f"init_from: the parent's network differs: {name} is {found} there; expected {expected}. "
                "Give both the same agent.network and tasks"
            )
    network.load_state_dict(theirs)


def arrays_of(tensors: Mapping[str, Tensor]) -> dict[str, npt.NDArray[np.generic]]:
    """Copies of tensors as arrays, which a `PolicySnapshot` holds."""
    return {name: value.detach().cpu().numpy().copy() for name, value in tensors.items()}


def tensors_of(arrays: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, Tensor]:
    """The inverse: copies of a snapshot's arrays as tensors."""
    return {name: torch.as_tensor(np.array(value)) for name, value in arrays.items()}
