"""Content of a start: the number of idle frames at the beginning, and which frames stick.

Every number is drawn from one Mersenne Twister, in the order in which ale-py's vector interface draws it, so
that a start is the same episode in Python and on the native backend (`NativeAtari` names the exceptions).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mtrl.tasks import start_generator

_WORDS = 2**32
"""Values of one draw of the generator."""
_FRAMES_AHEAD = 512
"""Frames whose stickiness is drawn at a time."""


@dataclass(frozen=True)
class ConsoleStart:
    """One start of one game."""

    seed: int
    """Seed of the random generator, 0 to 2**31 - 1."""
    idle_frames: int
    """Frames without action before the first observation, 1 to `noop_max`."""


def console_start(task_name: str, start: int, noop_max: int) -> ConsoleStart:
    """The seed of a start; its first draw names the number of idle frames, each of them equally likely."""
    generator = start_generator(task_name, start)
    while True:
        seed = int(generator.integers(2**31))
        idle_frames = drawn_idle_frames(seed, noop_max)
        # a game that begins without an idle frame is no start of ours
        if idle_frames:
            return ConsoleStart(seed, idle_frames)


def drawn_idle_frames(seed: int, noop_max: int) -> int:
    """The vector interface's first draw, from 0 to `noop_max`; 0 also for the rare draw that it rejects.

    Multiplication instead of division, as GNU's standard library does (Lemire 2019, algorithm 5).
    """
    choices = noop_max + 1
    word = int(np.random.RandomState(seed).randint(0, _WORDS, dtype=np.uint32))
    product = word * choices
    return product // _WORDS if product % _WORDS >= _WORDS % choices else 0


def sticking(start: ConsoleStart, probability: float) -> Iterator[bool]:
    """For frame after frame of the episode, whether it repeats the action of the frame before."""
    generator = np.random.RandomState(start.seed)
    # The emulator compares in single precision, and draws for both players in every frame, idle ones too.
    limit = float(np.float32(probability)) * _WORDS
    generator.randint(0, _WORDS, size=2 * start.idle_frames, dtype=np.uint32)
    while True:
        words = generator.randint(0, _WORDS, size=2 * _FRAMES_AHEAD, dtype=np.uint32)
        yield from (words[::2] < limit).tolist()
