"""What every learner of a network that acts by its moving average shares."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import numpy as np
import torch

from mtrl.errors import DivergenceError
from mtrl.nn import ChunkNetwork, update_average
from mtrl.reducer import Reducer
from mtrl.rollout import EpisodeGroup, Fragment, PolicySnapshot
from mtrl.training import Datasets, State, Use

from .pixel_student import PixelStudent
from .student import Student

if TYPE_CHECKING:
    from mtrl.evaluation import EvaluationResult

Network = TypeVar("Network", bound=ChunkNetwork | Student | PixelStudent)


class AveragedLearner(ABC, Generic[Network]):
    """AdamW on clipped gradients, and the weights' moving average, which acts.

    A subclass computes gradients in `update` and applies them by `_step`.
    """

    NAME: ClassVar[str]
    """Who learns, for messages."""
    KEY: ClassVar[str]
    """Name of the weights in `shared_state`."""
    STREAM: ClassVar[int]
    """Number of the learner's random streams, distinct for learners of one run."""

    def __init__(
        self,
        network: Network,
        seed: int,
        *,
        rank: int,
        learning_rate: float,
        weight_decay: float,
        ema_decay: float,
        gradient_clip: float,
    ) -> None:
        """Takes the network's weights as they are; draws differ between ranks."""
        self.updates = 0
        self._network: Network = network
        self._average: Network = copy.deepcopy(network)
        self._average.requires_grad_(False).eval()
        self._optimizer = torch.optim.AdamW(
            network.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True
        )
        self._ema_decay, self._gradient_clip = ema_decay, gradient_clip
        self._draws = np.random.default_rng([seed, self.STREAM, rank] if rank else [seed, self.STREAM])
        self._noise = torch.Generator().manual_seed(seed + self.STREAM + 1_000_003 * rank)

    @abstractmethod
    def snapshot(self, use: Use = "evaluate") -> PolicySnapshot:
        """The averaged weights as named arrays."""

    @abstractmethod
    def ingest(self, data: Fragment | EpisodeGroup | Datasets) -> None:
        """Takes what is learned from; raises ConfigError for anything else."""

    @abstractmethod
    def due(self, steps: int, reducer: Reducer) -> int:
        """Updates that are due."""

    @abstractmethod
    def update(self, reducer: Reducer) -> Mapping[str, float]:
        """One step on a batch of all ranks."""

    def on_evaluation(self, step: int, result: EvaluationResult) -> None:
        """Ignored."""

    def shared_state(self) -> State:
        """Weights, average and optimiser."""
        return {
            self.KEY: dict(self._network.state_dict()),
            "average": dict(self._average.state_dict()),
            "optimizer": self._optimizer.state_dict(),
            "updates": self.updates,
        }

    def local_state(self) -> State:
        """Random states."""
        return {"draws": self._draws.bit_generator.state, "noise": self._noise.get_state()}

    def restore(self, shared: State, local: State | None) -> None:
        """Restores both."""
        self._network.load_state_dict(shared[self.KEY])
        self._average.load_state_dict(shared["average"])
        self._optimizer.load_state_dict(shared["optimizer"])
        self.updates = shared["updates"]
        if local is not None:
            self._draws.bit_generator.state = local["draws"]
            self._noise.set_state(local["noise"])

    def _like(self, **others: Sequence[int]) -> dict[str, tuple[Sequence[int], torch.dtype]]:
        """Shape and type of every gradient, and of `others` by their shapes, for the reducer."""
        named = self._network.named_parameters()
        kind = next(self._network.parameters()).dtype
        like = {name: (value.shape, value.dtype) for name, value in named}
        return {**like, **{f"/{name}": (shape, kind) for name, shape in others.items()}}

    def _backward(self, loss: torch.Tensor) -> dict[str, torch.Tensor]:
        """Parameter name -> gradient, of those that the loss depends on."""
        self._network.zero_grad(set_to_none=True)
        loss.backward()
        named = self._network.named_parameters()
        return {name: value.grad for name, value in named if value.grad is not None}

    def _step(self, gradients: Mapping[str, torch.Tensor], loss: float, rate: float) -> dict[str, float]:
        """A clipped AdamW step and the average's; raises DivergenceError for a number that is not finite."""
        for name, parameter in self._network.named_parameters():
            parameter.grad = gradients.get(name)
        norm = float(torch.nn.utils.clip_grad_norm_(self._network.parameters(), self._gradient_clip))
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise DivergenceError(self.NAME, self.updates + 1, f"loss {loss}, gradient norm {norm}")
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self.updates += 1
        # decay_n = min(decay, (1 + n) / (10 + n)) forgets the initial weights (as TensorFlow's
        # ExponentialMovingAverage with num_updates)
        decay = min(self._ema_decay, (1 + self.updates) / (10 + self.updates))
        update_average(self._average, self._network, decay)
        return {"loss": loss, "gradient_norm": norm, "learning_rate": rate}
