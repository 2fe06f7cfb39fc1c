"""Atari's protocol: images, sticky actions, idle starts and action sets, against the bare emulator."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import ale_py
import cv2
import gymnasium
import numpy as np
import pytest
from ale_py import ALEInterface, LoggerMode

from mtrl.envs.atari import SUITE, catalogue
from mtrl.envs.atari.console import rom_path
from mtrl.envs.atari.starts import console_start
from mtrl.errors import UnsupportedError
from mtrl.tasks import Option, Score, Task

from .episodes import Action, Trajectory, assert_same_trajectory, buffers, fixed_actions, play

BREAKOUT_LIVES = 57
"""Address in Breakout's memory."""


def game(name: str, **options: Option) -> Task:
    return SUITE.task(f"atari/{name}", options)


def played(task: Task, start: int, actions: Sequence[Action]) -> Trajectory:
    """An episode on an environment of its own."""
    return play(SUITE.environment(task), task, start, actions)


def bare(rom: str) -> ALEInterface:
    """The emulator without anything of ours, after the one idle frame of `noop_max=1`."""
    ALEInterface.setLoggerMode(LoggerMode.Error)
    console = ALEInterface()
    console.setFloat("repeat_action_probability", 0.0)
    console.setInt("random_seed", 0)
    console.loadROM(rom_path(rom))
    console.reset_game()
    console.act(0)
    return console


def shrunk(*screens: np.ndarray) -> np.ndarray:
    """The maximum of grey screens, 84 by 84."""
    return cv2.resize(np.maximum.reduce(screens), (84, 84), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("rom", ["boxing", "breakout", "skiing", "lost_luggage", "tic_tac_toe_3d"])
def test_the_catalogue_tells_what_the_emulator_says(rom: str) -> None:
    name = catalogue.game_name(rom)
    assert catalogue.entries([rom]) == {name: SUITE.entry(f"atari/{name}")}


def test_the_catalogue_is_what_the_generator_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, order, sets and version; the slow twin asks the emulator for every game."""
    known = {
        rom: {name: SUITE.entry(f"atari/{name}")}
        for rom, name in ((rom, catalogue.game_name(rom)) for rom in catalogue.offered_roms())
    }
    monkeypatch.setattr(
        catalogue,
        "entries",
        lambda games: {name: entry for rom in games for name, entry in known[rom].items()},
    )
    assert catalogue.generate() == SUITE.catalogue.path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_whole_catalogue_is_what_the_emulator_says() -> None:
    assert catalogue.generate() == SUITE.catalogue.path.read_text(encoding="utf-8")


def test_every_game_for_one_player_is_offered_under_gymnasiums_name() -> None:
    gymnasium.register_envs(ale_py)
    known = {identifier for identifier in gymnasium.registry if identifier.startswith("ALE/")}
    assert {name.replace("atari/", "ALE/") + "-v5" for name in SUITE.names()} == known
    assert catalogue.LEFT_OUT.keys() == set(ale_py.roms.get_all_rom_ids()) - set(catalogue.offered_roms())


@pytest.mark.parametrize("rom", sorted(catalogue.LEFT_OUT))
def test_the_emulator_refuses_a_game_that_is_left_out(rom: str) -> None:
    """It ends the process that asks; so one of its own asks."""
    script = "import sys, ale_py; ale_py.ALEInterface().loadROM(ale_py.roms.get_rom_path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", script, rom], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "failed" in done.stdout + done.stderr


def test_sets_and_scores() -> None:
    assert len(SUITE.names()) == 104 and len(catalogue.SCORES) == 57
    assert SUITE.sets()["atari57"] == tuple(f"atari/{name}" for name in catalogue.SCORES)
    assert len(SUITE.sets()["atari26"]) == len(set(catalogue.ATARI_100K)) == 26
    assert SUITE.sets()["atari26"] == SUITE.sets()["atari100k"]
    assert set(SUITE.sets()["atari26"]) < set(SUITE.sets()["atari57"])
    score = game("Boxing").score
    assert score.kind == "return"
    # random play scores 0.1 and a human 12.1
    assert score.normalise(0.1, False) == 0.0
    assert score.normalise(12.1, False) == pytest.approx(1.0)
    assert score.normalise(6.1, False) == pytest.approx(0.5)


def test_a_game_without_published_returns_is_scored_by_its_raw_return() -> None:
    """And only such a game is."""
    assert game("Galaxian").score.normalise(1830.0, False) == 1830.0
    raw = {name for name in SUITE.names() if SUITE.task(name).score == Score("return")}
    assert raw == set(SUITE.names()) - set(SUITE.sets()["atari57"])


def test_half_an_hour_of_frames_is_an_episode() -> None:
    assert game("Pong").horizon_decisions == 27_000
    assert game("Pong", frame_skip=1).horizon_decisions == 108_000
    assert game("Pong").rate_hz == 15.0


def test_the_first_stack_repeats_the_first_image_and_later_ones_move_along() -> None:
    task = game("Boxing", frame_stack=3)
    pixels = played(task, 2, fixed_actions(task, 30)).bucket("pixels")
    assert pixels.shape == (31, 3, 84, 84)
    assert (pixels[0] == pixels[0, :1]).all()
    np.testing.assert_array_equal(pixels[1:, :-1], pixels[:-1, 1:])
    assert len({row.tobytes() for row in pixels[:, -1]}) > 15


@pytest.mark.parametrize("name", ["Boxing", "SpaceInvaders"])
def test_without_stickiness_it_is_the_bare_emulator(name: str) -> None:
    """Rewards, memory and the maximum of a decision's last two images, bit for bit."""
    task = game(name, sticky=0.0, noop_max=1, observation="both")
    actions = fixed_actions(task, 60)
    ours = played(task, 0, actions)
    console = bare(SUITE.entry(task.name).rom)
    screen = console.getScreenGrayscale()
    np.testing.assert_array_equal(ours.observations[0]["pixels"][-1], shrunk(screen, screen))
    for step, action in enumerate(actions):
        reward, screens = 0, []
        for _ in range(4):
            reward += console.act(int(action))
            screens.append(console.getScreenGrayscale())
        assert ours.outcomes[step][0] == reward
        seen = ours.observations[step + 1]
        np.testing.assert_array_equal(seen["pixels"][-1], shrunk(screens[2], screens[3]))
        np.testing.assert_array_equal(np.round(seen["state"] * 255.0), console.getRAM())


def test_one_frame_a_decision_shows_every_image() -> None:
    task = game("SpaceInvaders", sticky=0.0, noop_max=1, frame_skip=1, frame_stack=1)
    actions = fixed_actions(task, 30)
    pixels = played(task, 0, actions).bucket("pixels")
    console = bare("space_invaders")
    for step, action in enumerate(actions):
        console.act(int(action))
        np.testing.assert_array_equal(pixels[step + 1, 0], shrunk(console.getScreenGrayscale()))


@pytest.mark.parametrize("sticky", [0.25, 0.3])
def test_stickiness_is_what_the_emulator_would_draw(sticky: float) -> None:
    """A console seeded by the start, with the emulator's own sticky actions: rewards and memory.

    0.3 is another number in single precision, in which the emulator compares.
    """
    task = game("SpaceInvaders", sticky=sticky, observation="ram")
    start = 17
    actions = fixed_actions(task, 150)
    ours = played(task, start, actions)
    begun = console_start(task.name, start, 30)
    ALEInterface.setLoggerMode(LoggerMode.Error)
    console = ALEInterface()
    console.setFloat("repeat_action_probability", sticky)
    console.setInt("random_seed", begun.seed)
    console.loadROM(rom_path("space_invaders"))
    console.reset_game()
    for _ in range(begun.idle_frames):
        console.act(0)
    for step, action in enumerate(actions[: len(ours.outcomes)]):
        assert ours.outcomes[step][0] == sum(console.act(int(action)) for _ in range(4))
        memory = np.round(ours.observations[step + 1]["state"] * 255.0)
        np.testing.assert_array_equal(memory, console.getRAM())


def test_actions_that_always_stick_are_idle() -> None:
    """With probability 1 every frame repeats the one before it, and before the first there was none."""
    task = game("Boxing", sticky=1.0)
    idle: list[Action] = [0] * 40
    assert_same_trajectory(played(task, 3, fixed_actions(task, 40)), played(task, 3, idle))


def test_a_quarter_of_the_frames_sticks() -> None:
    task = game("Boxing", frame_skip=1)
    environment = SUITE.environment(task)
    out = buffers(task)
    environment.reset(0, out)
    refused, count = 0, 2000
    for step in range(count):
        # no wish comes again soon, so the emulator was given another action exactly when the frame stuck
        environment.step(step % 18, out)
        refused += environment._held.value != step % 18
    stuck = refused / count
    assert abs(stuck - 0.25) < 4 * np.sqrt(0.25 * 0.75 / count)


def test_stickiness_is_drawn_anew_for_every_start_and_alike_for_equal_ones() -> None:
    task = game("Boxing", noop_max=1, observation="ram")
    actions = fixed_actions(task, 40)
    ends = {played(task, start, actions).bucket("state").tobytes() for start in range(4)}
    assert len(ends) == 4
    firm = game("Boxing", noop_max=1, observation="ram", sticky=0.0)
    # without it, and with one idle frame at most, nothing is left to tell starts apart
    assert len({played(firm, start, actions).bucket("state").tobytes() for start in range(3)}) == 1


def test_the_first_frame_sticks_to_idleness_and_not_to_the_episode_before() -> None:
    task = game("Boxing", noop_max=1, observation="ram", frame_skip=1)
    environment = SUITE.environment(task)
    right: list[Action] = [3] * 6
    for start in range(12):
        fresh = played(task, start, right)
        play(environment, task, start, [3] * 20)
        assert_same_trajectory(play(environment, task, start, right), fresh)


def test_a_start_is_one_to_noop_max_idle_frames() -> None:
    task = game("Boxing", noop_max=5)
    environment, out = SUITE.environment(task), buffers(task)
    begun = SUITE.environment(game("Boxing", noop_max=1))
    begun.reset(0, out)
    first = begun._console.getFrameNumber()
    counts = set()
    for start in range(60):
        environment.reset(start, out)
        counts.add(environment._console.getFrameNumber() - first + 1)
    assert counts == {1, 2, 3, 4, 5}


def test_the_minimal_actions_are_those_of_the_full_set_that_the_game_tells_apart() -> None:
    full, minimal = (
        game("Breakout", observation="ram"),
        game("Breakout", observation="ram", action_set="minimal"),
    )
    assert (full.action.discrete, minimal.action.discrete) == (18, 4)
    codes = [code.value for code in bare("breakout").getMinimalActionSet()]
    assert codes == [0, 1, 3, 4]
    actions = fixed_actions(minimal, 60)
    assert_same_trajectory(
        played(minimal, 1, actions), played(full, 1, [codes[int(action)] for action in actions])
    )


def test_memory_is_scaled_to_one_and_may_stand_beside_the_images() -> None:
    alone, both = game("Pong", observation="ram"), game("Pong", observation="both")
    assert alone.observation.buckets == ("state",)
    assert set(both.observation.buckets) == {"state", "pixels"}
    actions = fixed_actions(alone, 20)
    memory = played(alone, 6, actions).bucket("state")
    np.testing.assert_array_equal(played(both, 6, actions).bucket("state"), memory)
    assert memory.min() >= 0.0 and memory.max() <= 1.0
    np.testing.assert_allclose(memory * 255.0, np.round(memory * 255.0), atol=1e-4)


def test_a_game_terminates_at_its_end_and_not_at_a_lost_life() -> None:
    """Breakout has five lives; served balls that are never returned lose them all."""
    task = game("Breakout", observation="both", action_set="minimal")
    episode = played(task, 0, [step % 2 for step in range(2000)])
    lives = np.round(episode.bucket("state")[:, BREAKOUT_LIVES] * 255.0)
    ended = [terminated for _, terminated, _ in episode.outcomes]
    assert ended == [False] * (len(ended) - 1) + [True]
    assert set(lives) >= {5.0, 4.0, 3.0, 2.0, 1.0}
    assert not any(success for _, _, success in episode.outcomes)
    # and the game after it is a whole one
    environment = SUITE.environment(task)
    play(environment, task, 0, [step % 2 for step in range(2000)])
    assert_same_trajectory(
        play(environment, task, 1, fixed_actions(task, 40)), played(task, 1, fixed_actions(task, 40))
    )


@pytest.mark.filterwarnings("ignore:Rom no_such_game not supported")
def test_a_missing_rom_is_named_with_its_mend() -> None:
    with pytest.raises(UnsupportedError, match=r"no ROM 'no_such_game'.*pip install"):
        rom_path("no_such_game")
