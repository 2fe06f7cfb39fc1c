"""Acting with RLlib's default networks, in plain torch and under RLlib's names.

RLlib itself takes seconds to import and hundreds of megabytes, which acting with a finished policy does not
need. A test compares both, number by number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mtrl.nn import Gaussian, TanhGaussian
from mtrl.rollout import PolicySnapshot, SharedObservation, SharedSpace
from mtrl.structured import build
from mtrl.tasks import TaskSet

from ..libraries import LibraryController, LibraryPolicy, require_weights
from .config import RLlibConfig

ENCODERS = {
    "sac": "pi_encoder.net.mlp",
    "ppo": "encoder.actor_encoder.net.mlp",
    "appo": "encoder.actor_encoder.net.mlp",
}
HEAD = "pi.net.mlp"
LOG_STD_RANGE = {"sac": (-5.0, 2.0), "ppo": (-20.0, 20.0), "appo": (-20.0, 20.0)}
"""Between which the logarithm of a standard deviation is clipped."""

_ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
}


class ActingNetwork(nn.Module):
    """Observation [N, D] -> logits [N, n] of a discrete policy, or mean and log_std [N, 2 A]."""

    def __init__(self, config: RLlibConfig, space: SharedSpace) -> None:
        """Fresh weights, drawn from torch's generator."""
        super().__init__()
        (width,) = space.observation_space.shape or ()
        outputs = space.layout.discrete_size if space.discrete else 2 * space.layout.continuous_size
        self._algorithm, self._discrete = config.algorithm, space.discrete
        self.encoder = _layers(width, config.fcnet_hiddens, config.fcnet_activation)
        hidden = config.head_fcnet_hiddens
        self.head = _layers(config.fcnet_hiddens[-1], hidden, config.head_fcnet_activation)
        self.head.append(nn.Linear((*config.fcnet_hiddens, *hidden)[-1], outputs))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Observation [N, D] -> outputs as the class describes them."""
        raw: torch.Tensor = self.head(self.encoder(observation))
        if self._discrete:
            return raw
        mean, log_std = raw.chunk(2, dim=-1)
        return torch.cat([mean, log_std.clamp(*LOG_STD_RANGE[self._algorithm])], dim=-1)

    def named_weights(self) -> dict[str, torch.Tensor]:
        """RLlib's name -> weight, the network's own."""
        places = {ENCODERS[self._algorithm]: self.encoder, HEAD: self.head}
        return {
            f"{place}.{name}": value
            for place, layers in places.items()
            for name, value in layers.state_dict().items()
        }

    def load_weights(self, weights: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Takes weights by RLlib's names; raises IntegrityError unless they are exactly this network's."""
        own = self.named_weights()
        with torch.no_grad():
            for name, value in require_weights(own, weights, self._algorithm).items():
                own[name].copy_(value)


class RLlibPolicy(LibraryPolicy):
    """Without exploring it takes the most likely index, or the mean, for SAC through the tanh (RLlib's own
    inference omits the tanh, so that its actions are larger than any it learned from).
    """

    def __init__(self, config: RLlibConfig, space: SharedSpace, network: ActingNetwork, version: int) -> None:
        """Shares the network's weights."""
        super().__init__(space, version)
        self._distribution = TanhGaussian if config.algorithm == "sac" else Gaussian
        self._network = network

    def deterministic(self, rows: SharedObservation) -> npt.NDArray[Any]:
        """The most likely index, or the mean action, through the tanh for SAC."""
        if self._space.discrete:
            return self._outputs(rows).argmax(dim=1).numpy()
        return self.gaussian(rows).mode().numpy()

    def probabilities(self, rows: SharedObservation) -> npt.NDArray[np.float64]:
        """Probabilities [N, n] of the actions, the softmax of the logits."""
        result: npt.NDArray[np.float64] = torch.softmax(self._outputs(rows).double(), dim=1).numpy()
        return result

    def gaussian(self, rows: SharedObservation, mask: torch.Tensor | None = None) -> Gaussian:
        """The policy's normal distribution, passed through tanh for SAC."""
        mean, log_std = self._outputs(rows).chunk(2, dim=1)
        return self._distribution(mean, log_std, mask)

    def _outputs(self, rows: SharedObservation) -> torch.Tensor:
        assert isinstance(rows, np.ndarray), "RLlib's default networks take one vector"
        outputs: torch.Tensor = self._network(torch.from_numpy(rows))
        return outputs


def network_from(snapshot: PolicySnapshot, tasks: TaskSet) -> tuple[RLlibConfig, SharedSpace, ActingNetwork]:
    """Settings, space and network of a snapshot; raises IntegrityError for weights of other tasks."""
    config = build(RLlibConfig, snapshot.config, "agent")
    space = SharedSpace(tasks)
    with torch.random.fork_rng(devices=[]):
        network = ActingNetwork(config, space)
    network.load_weights(snapshot.tensors)
    return config, space, network.requires_grad_(False).eval()


class _Mean(nn.Module):
    """The mean action [N, A_max] of a continuous policy, before any tanh."""

    def __init__(self, network: ActingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        mean: torch.Tensor = self.network(observation).chunk(2, dim=1)[0]
        return mean


def controller_from(snapshot: PolicySnapshot, tasks: TaskSet) -> LibraryController:
    """A snapshot as a controller."""
    config, space, network = network_from(snapshot, tasks)
    if space.discrete:
        return LibraryController(network, space)
    return LibraryController(_Mean(network), space, squash=config.algorithm == "sac")


def _layers(width: int, hidden: tuple[int, ...], activation: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip((width, *hidden), hidden, strict=False):
        layers.append(nn.Linear(before, after))
        # RLlib leaves out a linear activation, and numbers its layers without it
        if activation != "linear":
            layers.append(_ACTIVATIONS[activation]())
    return nn.Sequential(*layers)
