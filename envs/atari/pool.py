"""Atari games in EnvPool."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtrl.tasks import Buffers, Task

from ..envpool import Arrays, PoolEnvironment, Rows

OTHER_SCREENS = frozenset(
    {
        "adventure",
        "air_raid",
        "carnival",
        "journey_escape",
        "keystone_kapers",
        "king_kong",
        "klax",
        "laser_gates",
        "mr_do",
        "pacman",
        "pooyan",
        "sir_lancelot",
        "space_war",
    }
)
"""ROMs whose screen is not 210 lines high, which EnvPool takes for granted: its images are other ones."""


class AtariPool(PoolEnvironment):
    """A game with the protocol of its task: idle first frames, frame skip, the maximum of the last two
    images, stack, stickiness, full or minimal actions; rewards unclipped, one game an episode.

    Two things differ from the official emulator's environment. Where a game ends before the last two
    frames of a decision, EnvPool's last image is of the decision before. And `reset_game` lets an
    episode leak into the next in some games.
    """

    def __init__(self, task: Task, rom: str, copies: int, seed: int) -> None:
        """`task` carries the options; `rom` is ale-py's name of the game."""
        pixels = task.observation.pixels
        self._wants_pixels = pixels is not None
        self._wants_memory = task.observation.state is not None
        depth, height, width = pixels if pixels is not None else (1, 1, 1)
        super().__init__(
            task.name,
            atari_identifier(rom),
            copies,
            seed,
            repeat=1,
            frame_skip=task.action_repeat,
            stack_num=depth,
            img_height=height,
            img_width=width,
            noop_max=int(task.option("noop_max", 30)),
            repeat_action_probability=float(task.option("sticky", 0.25)),
            full_action_space=task.option("action_set", "full") == "full",
            use_fire_reset=False,
            episodic_life=False,
            reward_clip=False,
            gray_scale=True,
            use_inter_area_resize=True,
            # the lane ends an episode at the horizon
            max_episode_steps=2 * task.horizon_decisions,
        )

    def _write(self, observation: npt.NDArray[np.uint8], info: Arrays, rows: Rows, out: Buffers) -> None:
        if self._wants_pixels:
            out["pixels"][rows] = observation
        if self._wants_memory:
            out["state"][rows] = info["ram"] / np.float32(255.0)


def atari_identifier(rom: str) -> str:
    """EnvPool's name: "UpNDown-v5" for "up_n_down"."""
    return "".join(word.capitalize() for word in rom.split("_")) + "-v5"
