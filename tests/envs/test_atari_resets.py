"""Twenty starts of every game: the first observation, bit for bit, whatever was played before."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from mtrl.envs.atari import SUITE
from mtrl.envs.atari.starts import console_start

from ..sweeps import sampled
from .episodes import buffers, first_observation, fixed_actions

STARTS = range(100, 120)
PLAYED = 6
"""Decisions between two resets."""


@pytest.mark.parametrize("name", sampled(SUITE.names(), share=8), ids=lambda name: Path(name).name)
def test_twenty_starts_of_a_game(name: str) -> None:
    """Against the screen and memory of the console after as many idle frames, before anything was played."""
    task = SUITE.task(name, {"observation": "both", "frame_stack": 2})
    environment = SUITE.environment(task)
    console = environment._console
    idle = {}
    for count in range(1, 31):
        console.act(0)
        screen = cv2.resize(console.getScreenGrayscale(), (84, 84), interpolation=cv2.INTER_AREA)
        idle[count] = screen, console.getRAM() / np.float32(255.0)
    assert not console.game_over()
    out = buffers(task)
    actions = fixed_actions(task, PLAYED * len(STARTS))
    for place, start in enumerate(STARTS):
        first = first_observation(environment, task, start)
        screen, memory = idle[console_start(name, start, 30).idle_frames]
        np.testing.assert_array_equal(first["pixels"], np.stack([screen, screen]))
        np.testing.assert_array_equal(first["state"], memory)
        for action in actions[PLAYED * place : PLAYED * (place + 1)]:
            if environment.step(action, out)[1]:
                break
