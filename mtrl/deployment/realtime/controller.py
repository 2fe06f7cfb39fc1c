"""The state of a deployed policy between observations: history, chunk queue and noise of one episode."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..artefact.manifest import TaskEntry
from ..artefact.policy import ArtefactPolicy

Float64 = npt.NDArray[np.float64]


class ChunkController:
    """Turns an artefact's chunks into one action per tick: plan H, execute E, plan again.

    A chunk is indexed by time: when ticks were skipped, so are the actions that were meant for them.
    The history begins with h copies of the first observation; a skipped observation is missing in it.
    """

    def __init__(self, policy: ArtefactPolicy, entry: TaskEntry, generator: np.random.Generator) -> None:
        """`generator` draws the noise `z` as often as the manifest's `noise` requires."""
        self._policy = policy
        self._entry = entry
        self._generator = generator
        sizes = policy.manifest
        self._execute = sizes.execute
        self._history = np.zeros((sizes.history, sizes.state_size), dtype=np.float32)
        self._noise = np.zeros(sizes.noise_size, dtype=np.float32) if sizes.noise_size else None
        self._draws = sizes.noise != "zero"
        self._draws_again = sizes.noise == "chunk"
        self._columns = sizes.columns(entry)
        words, self.image = image_memory(sizes.pixels if entry.pixels else ())
        self.image_words = words
        """The newest image as words of memory, for whoever receives it: `image` [C, H, W] is a view of it."""
        self._chunk = np.zeros((sizes.chunk, entry.action_size))
        self._planned_at = -1
        self._begun = False

    def observe(self, state: Float64) -> None:
        """Appends the newest native state [D_task] to the history."""
        size = self._entry.state_size
        if self._begun:
            self._history[:-1] = self._history[1:]
            self._history[-1, :size] = state
        else:
            self._history[:, :size] = state
            self._begun = True

    def needs_plan(self, tick: int) -> bool:
        """Whether the chunk has no action for this tick."""
        return self._planned_at < 0 or not 0 <= tick - self._planned_at < self._execute

    def plan(self, tick: int) -> None:
        """Plans a chunk that begins at this tick."""
        noise = self._noise
        if noise is not None and self._draws:
            self._draws = self._draws_again
            self._generator.standard_normal(dtype=np.float32, out=noise)
        image = self.image if self._entry.pixels else None
        chunk = self._policy.act(self._history, self._entry.index, noise, image)
        own = chunk[:, self._columns]
        self._chunk[:] = chosen(own)[:, None] if self._entry.choices else own
        self._planned_at = tick

    def action(self, tick: int, out: npt.NDArray[np.float64]) -> None:
        """Writes the action [A_task] of a tick that the chunk covers; of a discrete task the index [1]."""
        out[:] = self._chunk[tick - self._planned_at]

    def forget_plan(self) -> None:
        """Makes the next tick plan again, after the robot held instead of following the chunk."""
        self._planned_at = -1


def image_memory(shape: Sequence[int]) -> tuple[Float64, npt.NDArray[np.uint8]]:
    """New memory for an image, as words of 8 bytes and as uint8 [C, H, W], a view of it."""
    size = math.prod(shape) if shape else 0
    words = np.zeros(image_words(shape))
    return words, words.view(np.uint8)[:size].reshape(shape or (0,))


def image_words(shape: Sequence[int]) -> int:
    """Words of 8 bytes that an image takes; one at the least."""
    return max(1, math.ceil(math.prod(shape or (0,)) / 8))


def chosen(scores: npt.NDArray[np.floating]) -> Float64:
    """Index [H] of the highest of scores [H, n]; NaN where one is not finite."""
    index = scores.argmax(axis=1).astype(np.float64)
    index[~np.isfinite(scores).all(axis=1)] = np.nan
    return index
