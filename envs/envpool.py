"""EnvPool (Weng et al. 2022): compiled simulators as a backend for training.

EnvPool draws its own initial states, and its simulators are compiled against other releases of MuJoCo, ALE
and Meta-World than the official environments here. So it serves the collection of experience; evaluation
and everything that names a start runs on the official environments.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import MissingExtraError
from mtrl.outcomes import signals
from mtrl.tasks import Buffers, VectorAction, native_threads

EXTRAS: Mapping[str, str] = {"envpool": "envpool"}
"""The backend's package, and the extra that installs it."""
Arrays = Mapping[str, npt.NDArray[Any]]
"""Name -> array with a row for each copy."""
Rows = slice | npt.NDArray[np.int32]
"""Which copies the rows of an answer belong to: all of them, or those of an index."""


class PoolEnvironment(ABC):
    """M copies of one task in an EnvPool with threads of its own, as many as `native_threads` allows.

    EnvPool answers a step after the end of an episode with the first observation of the next one, and
    the action is lost. Here no copy is stepped past its end: it waits, with reward 0, until it is reset.
    """

    supports_starts = False

    def __init__(
        self, task_name: str, identifier: str, copies: int, seed: int, repeat: int, **settings: object
    ) -> None:
        """`identifier` is EnvPool's name of the task; `repeat` the steps of the pool that a decision lasts.

        `settings` go to EnvPool as they are. Raises MissingExtraError when EnvPool is not installed.
        """
        self._pool: Any = _make(
            task_name,
            identifier,
            num_envs=copies,
            num_threads=min(copies, native_threads()),
            env_seed=pool_seeds(seed, copies),
            **settings,
        )
        self._repeat = repeat
        self._everyone = np.arange(copies, dtype=np.int32)
        self._over = np.zeros(copies, dtype=bool)

    def reset(self, copies: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], out: Buffers) -> None:
        """Begins a new episode in each of `copies` [R] and in no other; the starts have no meaning here.

        A copy's initial states are a sequence of its own, given by the seed and its number.
        """
        if len(copies) == 0:
            return
        chosen = copies.astype(np.int32)
        observation, info = self._pool.reset(chosen)
        self._over[chosen] = False
        self._write(observation, info, chosen, out)

    def step(
        self,
        action: VectorAction,
        out: Buffers,
        reward: npt.NDArray[np.float32],
        terminated: npt.NDArray[np.bool_],
        success: npt.NDArray[np.bool_],
    ) -> None:
        """Plays one decision in every copy whose episode goes on; see `VectorEnvironment.step`."""
        control = self._control(action)
        reward[:] = 0.0
        terminated[:] = False
        success[:] = False
        rows: Rows
        for _ in range(self._repeat):
            if not self._over.any():
                playing, rows, chosen = self._everyone, slice(None), control
            else:
                playing = self._everyone[~self._over]
                rows, chosen = playing, control[playing]
                if len(playing) == 0:
                    return
            observation, gained, ended, cut_off, info = self._pool.step(chosen, playing)
            self._write(observation, info, rows, out)
            reward[rows] += gained
            terminated[rows] = ended
            self._over[rows] = ended | cut_off
            if "success" in info:
                success[rows] = signals("success", info["success"])

    def close(self) -> None:
        """Ends EnvPool's threads, and frees the simulators."""
        # EnvPool has no other way: its threads end with the object
        self._pool = None

    def _control(self, action: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The actions [M, ...] in EnvPool's units."""
        return action

    @abstractmethod
    def _write(self, observation: Any, info: Arrays, rows: Rows, out: Buffers) -> None:  # noqa: ANN401
        """Writes an answer of EnvPool, one row a copy of `rows`, into those rows of `out`."""


def pool_seeds(seed: int, copies: int) -> list[int]:
    """A seed for each copy; unlike EnvPool's own rule seed + copy, neighbouring seeds share none."""
    words = np.random.SeedSequence(seed).generate_state(copies)
    # EnvPool takes signed 32-bit numbers
    return [int(word >> 1) for word in words]


def _make(task_name: str, identifier: str, **settings: object) -> Any:  # noqa: ANN401 - classes made at run time
    try:
        import envpool
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"backend 'envpool' of task {task_name}", "envpool", "envpool") from error
    return envpool.make_gymnasium(identifier, **settings)
