"""What every learner of a chunk network from demonstrations shares."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from mtrl.data import RankDataset, Trajectories
from mtrl.errors import ConfigError
from mtrl.nn import ChunkShape
from mtrl.reducer import Reducer
from mtrl.rollout import EpisodeGroup, Fragment
from mtrl.spaces import Moments, warn_of_constants
from mtrl.tasks import TaskSet
from mtrl.training import Datasets

from .averaged_learner import AveragedLearner, Network


class ChunkLearner(AveragedLearner[Network]):
    """Learns from this rank's demonstrations, which are stored with the run."""

    def __init__(
        self,
        network: Network,
        shape: ChunkShape,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int,
        ranks: int,
        learning_rate: float,
        weight_decay: float,
        ema_decay: float,
        gradient_clip: float,
        keeps_moments: bool,
        stride: int = 0,
    ) -> None:
        """`keeps_moments`: states are standardised as `network` says, not by the demonstrations' moments.
        `stride` as of `mtrl.data.ChunkDataset`.
        """
        super().__init__(
            network,
            seed,
            rank=rank,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            ema_decay=ema_decay,
            gradient_clip=gradient_clip,
        )
        self._names, self._keeps_moments = tasks.names, keeps_moments
        self._data = RankDataset(tasks, shape.history, shape.chunk, ranks, self.NAME, stride)

    def ingest(self, data: Fragment | EpisodeGroup | Datasets) -> None:
        """Takes demonstrations; raises ConfigError for anything else."""
        if not isinstance(data, Datasets):
            raise ConfigError(f"{self.NAME} learns from demonstrations (Datasets)")
        kept = {k: self._select(part) for k, part in data.trajectories.items()}
        self._data.ingest(kept, self._returns(kept))

    def due(self, steps: int, reducer: Reducer) -> int:
        """The granted updates that are left, once all ranks have demonstrations."""
        if not self._data.ready and self._data.agree(reducer):
            self._take_moments(self._data.moments)
        return max(0, steps - self.updates) if self._data.ready else 0

    def _take_moments(self, moments: Moments) -> None:
        """Standardises states by the moments of the demonstrations, unless it keeps the network's own."""
        if not self._keeps_moments:
            for network in (self._network, self._average):
                network.set_moments(moments)
            warn_of_constants({self._names[k]: which for k, which in self._data.constants.items()})

    def _returns(self, data: Mapping[int, Trajectories]) -> Mapping[int, npt.NDArray[np.float64]] | None:
        """Task -> the return of every episode [E], where samples say how good theirs is; None by default."""
        return None

    def _select(self, data: Trajectories) -> Trajectories:
        """The episodes of a task whose states and actions are learned from, all by default. `data` also has
        their rewards and success, failures included: a subclass that uses them keeps them here.
        """
        return data
