"""Games in ale-py's compiled vector interface."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from ale_py import ALEVectorInterface

from mtrl.errors import SpaceError, UnsupportedError
from mtrl.tasks import Buffers, Task, VectorAction

from ..images import ImageStack
from .console import PIXEL_SIZE, load_console, rom_path
from .starts import console_start

_NEVER = 2**30
"""Frames after which the interface would cut an episode off; here the lane does, at the task's horizon."""

ROMS_WITH_SETUP_ACTIONS = frozenset({"adventure", "berzerk", "double_dunk", "video_cube"})
"""Games that the emulator sets up by actions of its own, which draw random numbers and may stick."""


class NativeAtari:
    """M copies of one game, stepped by one thread of the interface's own without the interpreter's
    lock.

    The same start and actions give the same rewards, ends and images as `AtariEnvironment`, bit for bit,
    sticky frames included, with two exceptions. The interface takes no image of the frame in which a game
    ends: the newest image of a terminated copy is then made of the frames before, some of which may belong to
    the decision before; nothing that follows a termination depends on it. And the games of
    `ROMS_WITH_SETUP_ACTIONS` draw other sticky frames, and with them Double Dunk and Video Cube other first
    images: there a start with sticky actions is exact within this backend, but another one than in Python.

    To reset to a given start the interface must load the game again, which takes about 0.1 s, as long as
    some 300 decisions: most of it goes into a table of blended colours that is never used. Its quick reset
    continues the random numbers of the episode before, and in some games (Assault, Tennis, Hero) keeps
    parts of its state.
    """

    supports_starts = True

    def __init__(self, task: Task, rom: str, copies: int) -> None:
        """`task` carries the options, and observes images alone; `rom` is ale-py's name of the game."""
        assert task.observation.pixels is not None and task.observation.state is None
        assert task.action.discrete is not None
        self._name = task.name
        self._actions = task.action.discrete
        self._noop_max = int(task.option("noop_max", 30))
        self._interface = ALEVectorInterface(
            rom_path=rom_path(rom),
            num_envs=copies,
            frame_skip=task.action_repeat,
            # stacked here: the interface would stack black images at the beginning of an episode
            stack_num=1,
            img_height=PIXEL_SIZE,
            img_width=PIXEL_SIZE,
            grayscale=True,
            maxpool=True,
            # it draws from 0 to one less
            noop_max=self._noop_max + 1,
            use_fire_reset=False,
            episodic_life=False,
            life_loss_info=False,
            reward_clipping=False,
            max_episode_steps=_NEVER,
            repeat_action_probability=float(task.option("sticky", 0.25)),
            full_action_space=task.option("action_set", "full") == "full",
            batch_size=0,
            num_threads=1,
            thread_affinity_offset=-1,
            # an ended copy waits for its next action, and is reset before that comes
            autoreset_mode="NextStep",
        )
        self._stack = ImageStack(copies, *task.observation.pixels)
        self._strength = np.ones(copies, dtype=np.float32)
        self._seeds = np.zeros(copies, dtype=np.int64)
        self._begun = False
        draws_apart = rom in ROMS_WITH_SETUP_ACTIONS and bool(task.option("sticky", 0.25))
        self._frames_before = None if draws_apart else _frames_before_play(rom)

    def reset(self, copies: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], out: Buffers) -> None:
        """Begins the game in each of `copies` [R] with the idle frames of its start.

        `out`: `pixels` uint8 [M, frame_stack, 84, 84], oldest first, the first image repeated. Raises
        UnsupportedError where the interface draws idle frames by another rule than the one known here.
        """
        if len(copies) == 0:
            return
        begun = [console_start(self._name, int(start), self._noop_max) for start in starts]
        self._seeds[copies] = [start.seed for start in begun]
        # the interface expects its first reset to name all copies
        chosen = copies if self._begun else np.arange(len(self._seeds))
        images, info = self._interface.reset(chosen, self._seeds[chosen])
        self._begun = True
        pixels = out["pixels"]
        for copy, start in zip(copies.tolist(), begun, strict=True):
            self._check_idle_frames(int(info["episode_frame_number"][copy]), start.idle_frames)
            self._stack.newest[copy] = images[copy, 0]
            self._stack.begin(copy)
            pixels[copy] = self._stack.window[copy]

    def step(
        self,
        action: VectorAction,
        out: Buffers,
        reward: npt.NDArray[np.float32],
        terminated: npt.NDArray[np.bool_],
        success: npt.NDArray[np.bool_],
    ) -> None:
        """Plays one action index [M] in every copy; see `VectorEnvironment.step`.

        Raises SpaceError for an index that the game does not have.
        """
        if action.min() < 0 or action.max() >= self._actions:
            # the interface would never answer, and the caller wait for ever
            raise SpaceError(f"{self._name} takes actions 0 to {self._actions - 1}; got {action.tolist()}")
        self._interface.send(action, self._strength)
        images, gained, over, _, _ = self._interface.recv()
        self._stack.advance()
        self._stack.newest[...] = images[:, 0]
        out["pixels"][...] = self._stack.window
        reward[...] = gained
        terminated[...] = over
        success[...] = False

    def close(self) -> None:
        """Ends the thread and frees the consoles."""
        # the interface has no other way: its thread ends with the object
        del self._interface

    def _check_idle_frames(self, frames: int, expected: int) -> None:
        if self._frames_before is not None and frames - self._frames_before != expected:
            raise UnsupportedError(
                f"backend 'native' of {self._name} drew {frames - self._frames_before} idle frames where "
                f"{expected} are expected: ale-py was built with another standard library here. Use backend "
                "'python'"
            )


def _frames_before_play(rom: str) -> int:
    """Frames that a reset counts on its own: some games are set up by presses of the select switch."""
    console = load_console(rom)
    console.reset_game()
    return int(console.getEpisodeFrameNumber())
