"""What a start decides in Atari, and the stack of images."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from mtrl.envs.atari.starts import ConsoleStart, console_start, drawn_idle_frames, sticking
from mtrl.envs.images import ImageStack


def test_the_first_draw_is_scaled_to_the_choices() -> None:
    """The twister's first number under its customary seed 5489 is 3499211612 (Matsumoto & Nishimura)."""
    # 3499211612 * 31 / 2**32 = 25.26
    assert drawn_idle_frames(5489, 30) == 25
    # 3499211612 * 2 / 2**32 = 1.63
    assert drawn_idle_frames(5489, 1) == 1


def test_every_number_of_idle_frames_is_drawn_equally_often() -> None:
    count = 3000
    drawn = [console_start("atari/Pong", start, 5).idle_frames for start in range(count)]
    frequencies = np.bincount(drawn, minlength=6)
    assert frequencies[0] == 0 and len(frequencies) == 6
    # five standard deviations of a binomial count
    np.testing.assert_allclose(frequencies[1:], count / 5, atol=5 * np.sqrt(count * 0.2 * 0.8))


def test_a_start_depends_on_the_task_and_on_itself_alone() -> None:
    assert console_start("atari/Pong", 3, 30) == console_start("atari/Pong", 3, 30)
    seeds = {console_start(name, start, 30).seed for name in ("a/b", "a/c") for start in range(50)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_frames_stick_as_often_as_asked(probability: float) -> None:
    count = 4000
    stuck = list(islice(sticking(ConsoleStart(7, 3), probability), count))
    margin = 5 * np.sqrt(probability * (1.0 - probability) / count)
    assert abs(np.mean(stuck) - probability) <= margin


def test_idle_frames_use_up_their_draws() -> None:
    late = sticking(ConsoleStart(7, 9), 0.5)
    early = islice(sticking(ConsoleStart(7, 4), 0.5), 5, None)
    assert list(islice(late, 1500)) == list(islice(early, 1500))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_the_window_holds_the_last_images(depth: int) -> None:
    stack = ImageStack(2, depth, 84, 84)
    shown: list[list[int]] = [[], []]
    for step in range(1, 4 * depth + 3):
        stack.advance()
        for copy in range(2):
            stack.newest[copy] = 100 * copy + step
            shown[copy].append(100 * copy + step)
        if step == depth + 2:
            # an episode of the second copy begins here; the first goes on
            stack.begin(1)
            shown[1] = [shown[1][-1]] * depth
        if step >= depth:
            assert stack.window.shape == (2, depth, 84, 84)
            for copy in range(2):
                assert stack.window[copy, :, 0, 0].tolist() == shown[copy][-depth:]
                assert (stack.window[copy] == stack.window[copy, :, :1, :1]).all()
