"""One Arcade Learning Environment behind mtrl's Environment contract."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import cv2
import numpy as np
import numpy.typing as npt
from ale_py import Action

from mtrl.tasks import Buffers, Task, TaskAction

from ..images import ImageStack
from .console import PIXEL_SIZE, RAM_SIZE, load_console
from .starts import console_start, sticking


class AtariEnvironment:
    """One game. Each decision holds an action for `frame_skip` frames; the image is the maximum of the
    last two frames (sprites flicker), made grey and shrunk by area averaging (Mnih et al. 2015).

    Sticky actions are drawn here, frame by frame by the emulator's own rule and in its order, and the
    emulator runs without randomness: seeding it would cost a new console every episode. Its `reset_game`
    alone lets the episode before leak into the next in some games (Assault, Tennis), and restoring a saved
    state alone does in others (Amidar, Qbert); one after the other does not.
    """

    def __init__(self, task: Task, rom: str) -> None:
        """`task` carries the options; `rom` is ale-py's name of the game."""
        self._name = task.name
        self._frame_skip = task.action_repeat
        self._sticky = float(task.option("sticky", 0.25))
        self._noop_max = int(task.option("noop_max", 30))
        console = load_console(rom)
        console.reset_game()
        self._console = console
        self._fresh = console.cloneState()
        full = task.option("action_set", "full") == "full"
        codes = console.getLegalActionSet() if full else console.getMinimalActionSet()
        self._codes = list(codes)
        self._screens = np.zeros((2, *console.getScreenDims()), dtype=np.uint8)
        self._brightest = np.zeros_like(self._screens[0])
        self._wants_pixels = task.observation.pixels is not None
        self._wants_memory = task.observation.state is not None
        depth = task.observation.pixels[0] if task.observation.pixels is not None else 1
        self._stack = ImageStack(1, depth, PIXEL_SIZE, PIXEL_SIZE)
        self._memory = np.zeros(RAM_SIZE, dtype=np.uint8)
        self._stuck: Iterator[bool] = repeat(False)
        self._held = Action.NOOP

    def reset(self, start: int, out: Buffers) -> None:
        """Begins the game with a number of idle frames drawn by the start.

        `out`: `pixels` uint8 [frame_stack, 84, 84], oldest first, the first image repeated; `state`
        float32 [128], the memory divided by 255.
        """
        begun = console_start(self._name, start, self._noop_max)
        if self._sticky:
            self._stuck = sticking(begun, self._sticky)
        self._held = Action.NOOP
        self._console.reset_game()
        self._console.restoreState(self._fresh)
        for _ in range(begun.idle_frames):
            self._console.act(Action.NOOP)
        if self._wants_pixels:
            self._console.getScreenGrayscale(self._screens[0])
            self._screens[1] = self._screens[0]
            self._shrink()
            self._stack.begin(0)
        self._write(out)

    def step(self, action: TaskAction, out: Buffers) -> tuple[float, bool, bool]:
        """Plays one action index; the reward is the score gained. There is no success signal."""
        console = self._console
        code = self._codes[int(action)]
        reward = 0.0
        last = self._frame_skip - 1
        over = False
        for frame in range(self._frame_skip):
            if not next(self._stuck):
                self._held = code
            reward += console.act(self._held)
            over = console.game_over(with_truncation=False)
            if self._wants_pixels and (over or frame >= last - 1):
                console.getScreenGrayscale(self._screens[frame & 1])
                if over or last == 0:
                    # one image serves as both
                    self._screens[1 - (frame & 1)] = self._screens[frame & 1]
            if over:
                break
        if self._wants_pixels:
            self._stack.advance()
            self._shrink()
        self._write(out)
        return reward, over, False

    def render(self) -> npt.NDArray[np.uint8]:
        """The console's image in RGB, [210, 160, 3]."""
        frame: npt.NDArray[np.uint8] = self._console.getScreenRGB()
        return frame

    def close(self) -> None:
        """Nothing to free: the emulator goes with the object."""

    def _shrink(self) -> None:
        np.maximum(self._screens[0], self._screens[1], out=self._brightest)
        cv2.resize(
            self._brightest, (PIXEL_SIZE, PIXEL_SIZE), dst=self._stack.newest[0], interpolation=cv2.INTER_AREA
        )

    def _write(self, out: Buffers) -> None:
        if self._wants_pixels:
            out["pixels"][...] = self._stack.window[0]
        if self._wants_memory:
            self._console.getRAM(self._memory)
            np.divide(self._memory, 255.0, out=out["state"], casting="unsafe")
