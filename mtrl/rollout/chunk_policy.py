"""Acting with planned chunks: a queue of actions per copy, refilled by a sampler of chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from mtrl.errors import OutOfRangeError
from mtrl.spaces import Observation
from mtrl.structured import Checked, at_least

from .policy import Acting, Action, Extra, PolicyState


@dataclass(frozen=True)
class ChunkSpec:
    """Sizes of a map from states to action chunks."""

    history: int
    """States seen h, the newest last, at least 1."""
    state_size: int
    """Padded length of a state, D_max."""
    chunk: int
    """Actions planned at once H, at least 1."""
    actions: int
    """Padded length of an action, A_max, `choices` included."""
    noise_size: int = 0
    """Length of the noise z, Z; 0 for a function of states and task alone."""
    choices: int = 0
    """Columns of an action that score the choices of a discrete task, the last ones: the highest is taken."""


@runtime_checkable
class ChunkSampler(Protocol):
    """A deterministic map (state history, task, noise z) -> action chunk: a sampler of many steps, one
    network, an exported graph, a planner. A `ChunkPolicy` executes it, and a distiller may learn it.
    """

    @property
    def spec(self) -> ChunkSpec:
        """The sizes."""

    def sample(
        self, states: npt.NDArray[np.float32], task: npt.NDArray[np.int64], z: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """States [N, h, D_max], task [N], standard normal z [N, Z] -> chunk [N, H, A_max] in [-1, 1], 0 in
        columns of other tasks.
        """


@dataclass(frozen=True)
class FunctionSampler:
    """A function with its sizes, as a `ChunkSampler`."""

    spec: ChunkSpec
    sample: Callable[
        [npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32]], npt.NDArray[np.float32]
    ]


@dataclass(frozen=True)
class Execution(Checked, place="execution"):
    """Settings of the execution of planned chunks."""

    steps: Annotated[int, at_least(1)] = 4
    """Actions executed before the next plan, 1 to the chunk's length."""
    noise: Annotated[str, ("chunk", "episode", "zero")] = "chunk"
    """Source of z: "chunk" draws for every plan, "episode" once per episode, "zero" never."""

    def require_within(self, chunk: int, place: str = "") -> None:
        """Raises OutOfRangeError where more than a chunk is executed; `place` is the key around both."""
        if self.steps > chunk:
            allowed = f"1 to the chunk's length, {place}network.chunk={chunk}"
            raise OutOfRangeError(f"{place}execution.steps", self.steps, allowed)


class ChunkPolicy:
    """Executes the first `steps` actions of each planned chunk, then plans again.

    State per copy: the last h states, the queue, its read position, and the episode's noise.
    """

    extras: tuple[Extra, ...] = ()

    def __init__(self, sampler: ChunkSampler, execution: Execution, version: int = 0) -> None:
        """Raises OutOfRangeError where more is executed than planned."""
        execution.require_within(sampler.spec.chunk)
        self.version = version
        self.sampler = sampler
        """The map that plans."""
        self._execution = execution

    def initial_state(self, count: int) -> PolicyState:
        """Empty queues."""
        spec = self.sampler.spec
        return {
            "history": np.zeros((count, spec.history, spec.state_size), dtype=np.float32),
            "queue": np.zeros((count, spec.chunk, spec.actions), dtype=np.float32),
            "position": np.full(count, spec.chunk, dtype=np.int64),
            "noise": np.zeros((count, spec.noise_size), dtype=np.float32),
        }

    def act(
        self,
        observation: Observation,
        task_index: npt.NDArray[np.int64],
        state: PolicyState,
        ended: npt.NDArray[np.bool_],
        *,
        acting: Acting,
        generators: Sequence[np.random.Generator],
    ) -> Action:
        """Plans for the copies whose queue ran out, pops one action of each."""
        now = observation["state"]
        # Copies, so that the caller's state stays what it was.
        history = np.concatenate([state["history"][:, 1:], now[:, None]], axis=1).astype(np.float32)
        history[ended] = now[ended][:, None]
        queue, position = state["queue"].copy(), state["position"].copy()
        noise = state["noise"].copy()
        position[ended] = self.sampler.spec.chunk
        plan = np.flatnonzero(position >= self._execution.steps)
        if len(plan):
            for copy in map(int, plan):
                if self._execution.noise == "chunk" or (self._execution.noise == "episode" and ended[copy]):
                    noise[copy] = generators[copy].standard_normal(noise.shape[1], dtype=np.float32)
            queue[plan] = self.sampler.sample(history[plan], task_index[plan], noise[plan])
            position[plan] = 0
        rows = np.arange(len(now))
        width = queue.shape[2] - self.sampler.spec.choices
        continuous, scores = np.split(queue[rows, position], [width], axis=1)
        # scores that are not finite are no choice, which the lane refuses
        best = scores.argmax(1) if scores.shape[1] else np.zeros(len(now), dtype=np.int64)
        return Action(
            continuous=np.clip(continuous, -1.0, 1.0).astype(np.float32),
            discrete=np.where(np.isfinite(scores).all(1), best, -1),
            state={"history": history, "queue": queue, "position": position + 1, "noise": noise},
        )
