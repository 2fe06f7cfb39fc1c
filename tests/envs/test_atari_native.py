"""ale-py's vector interface as a backend: the same episodes as the console stepped from Python."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest

from mtrl.envs.atari import SUITE, native
from mtrl.envs.atari.starts import ConsoleStart
from mtrl.envs.images import ImageStack
from mtrl.errors import SpaceError, UnsupportedError
from mtrl.rollout import Acting, EpisodeGroup, GroupRequest, PolicySnapshot, RolloutWorker
from mtrl.rollout.episodes import STEP_FIELDS
from mtrl.tasks import Option, Task, TaskSet, VectorEnvironment, VectorSuite

from ..sweeps import sampled
from .episodes import buffers, first_observation, play

STARTS = range(200, 220)
LEAKING = ("atari/Assault", "atari/Tennis", "atari/Qbert", "atari/Amidar")
"""Games whose console, reset the quick way, shows something of the episode before."""


def game(name: str, **options: Option) -> Task:
    return SUITE.task(f"atari/{name}", options)


def built(task: Task, copies: int) -> VectorEnvironment:
    return SUITE.vector_environment(task, copies, "native", 0)


@dataclass
class Shown:
    """Buffers of M copies."""

    pixels: npt.NDArray[np.uint8]
    reward: npt.NDArray[np.float32]
    terminated: npt.NDArray[np.bool_]
    success: npt.NDArray[np.bool_]

    @property
    def out(self) -> dict[str, npt.NDArray[np.generic]]:
        return {"pixels": self.pixels}


def shown(task: Task, copies: int) -> Shown:
    """Buffers filled with values that nothing sensible leaves in them."""
    assert task.observation.pixels is not None
    return Shown(
        pixels=np.full((copies, *task.observation.pixels), 255, dtype=np.uint8),
        reward=np.full(copies, np.nan, dtype=np.float32),
        terminated=np.ones(copies, dtype=bool),
        success=np.ones(copies, dtype=bool),
    )


def step(environment: VectorEnvironment, actions: npt.NDArray[np.int64], seen: Shown) -> None:
    environment.step(actions, seen.out, seen.reward, seen.terminated, seen.success)


def random_actions(task: Task, steps: int, copies: int, seed: int = 0) -> npt.NDArray[np.int64]:
    assert task.action.discrete is not None
    return np.random.default_rng(seed).integers(0, task.action.discrete, (steps, copies))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Breakout", {}),
        ("Assault", {"sticky": 0.0, "action_set": "minimal"}),
        ("AirRaid", {"sticky": 0.3, "noop_max": 1, "frame_skip": 2}),
        ("SpaceInvaders", {"frame_skip": 1, "frame_stack": 1}),
        ("Qbert", {"frame_skip": 3, "frame_stack": 5, "noop_max": 60}),
    ],
)
def test_rewards_ends_and_images_are_those_of_the_python_backend(
    name: str, options: dict[str, Option]
) -> None:
    """200 decisions of two copies, after another episode in each."""
    task, copies, steps = game(name, **options), 2, 200
    environment, seen = built(task, copies), shown(task, copies)
    actions = random_actions(task, steps, copies)
    everyone = np.arange(copies)
    environment.reset(everyone, np.array([1, 2]), seen.out)
    for row in random_actions(task, 20, copies, seed=1):
        step(environment, row, seen)
    starts = np.array([31, 32])
    environment.reset(everyone, starts, seen.out)
    images, rewards, ends = [seen.pixels.copy()], [], []
    for row in actions:
        step(environment, row, seen)
        images.append(seen.pixels.copy())
        rewards.append(seen.reward.copy())
        ends.append(seen.terminated.copy())
        assert not seen.success.any()
        if seen.terminated.any():
            break
    assert len(ends) > 50
    python = SUITE.environment(task)
    for copy in range(copies):
        trajectory = play(python, task, int(starts[copy]), [int(row[copy]) for row in actions[: len(ends)]])
        assert len(trajectory.outcomes) == len(ends)
        for t, (reward, terminated, _) in enumerate(trajectory.outcomes):
            assert (reward, terminated) == (rewards[t][copy], ends[t][copy]), f"decision {t}"
        for t, image in enumerate(trajectory.bucket("pixels")):
            if t == 0 or not ends[t - 1][copy]:
                np.testing.assert_array_equal(images[t][copy], image, err_msg=f"image {t}")
    if name == "Assault":
        # unclipped: a hit is worth 21 points
        assert np.max(rewards) >= 21.0


def test_a_game_ends_as_in_python_but_for_the_last_image() -> None:
    """Breakout's balls are lost one by one; the other copy plays on through the reset of the first."""
    task = game("Breakout", sticky=0.0, action_set="minimal")
    environment, seen = built(task, 2), shown(task, 2)
    environment.reset(np.arange(2), np.array([4, 5]), seen.out)
    serve, wait, steps = 1, 0, 0
    while steps < 2000:
        # the second copy serves no ball, and so plays for ever
        step(environment, np.array([serve if steps % 2 else wait, wait]), seen)
        steps += 1
        if seen.terminated.any():
            break
    assert seen.terminated.tolist() == [True, False]
    python = SUITE.environment(task)
    ours = play(python, task, 4, [serve if index % 2 else wait for index in range(steps)])
    assert [ended for _, ended, _ in ours.outcomes] == [False] * (steps - 1) + [True]
    last = ours.observations[-1]["pixels"]
    np.testing.assert_array_equal(seen.pixels[0, :-1], last[:-1])
    # every image is written, even the one that the interface did not take
    assert seen.pixels[0, -1].max() < 255
    other = seen.pixels[1].copy()
    environment.reset(np.array([0]), np.array([9]), seen.out)
    np.testing.assert_array_equal(seen.pixels[0], first_observation(python, task, 9)["pixels"])
    np.testing.assert_array_equal(seen.pixels[1], other)
    step(environment, np.array([wait, wait]), seen)
    assert not seen.terminated.any()
    quiet = play(python, task, 5, [wait] * (steps + 1))
    np.testing.assert_array_equal(seen.pixels[1], quiet.observations[-1]["pixels"])


def test_only_the_rows_of_the_copies_that_are_reset_are_written() -> None:
    task = game("Pong")
    environment, seen = built(task, 3), shown(task, 3)
    environment.reset(np.array([2]), np.array([7]), seen.out)
    assert (seen.pixels[:2] == 255).all()
    expected = first_observation(SUITE.environment(task), task, 7)["pixels"]
    np.testing.assert_array_equal(seen.pixels[2], expected)
    environment.reset(np.array([], dtype=np.int64), np.array([], dtype=np.int64), seen.out)
    assert (seen.pixels[:2] == 255).all()


def twenty_starts(name: str) -> None:
    rom = SUITE.entry(name).rom
    task = SUITE.task(name, {"sticky": 0.0} if rom in native.ROMS_WITH_SETUP_ACTIONS else {})
    environment, seen = built(task, 1), shown(task, 1)
    python = SUITE.environment(task)
    actions = random_actions(task, 5 * len(STARTS), 1)
    for place, start in enumerate(STARTS):
        environment.reset(np.array([0]), np.array([start]), seen.out)
        expected = first_observation(python, task, start)["pixels"]
        np.testing.assert_array_equal(seen.pixels[0], expected, err_msg=f"start {start}")
        for row in actions[5 * place : 5 * (place + 1)]:
            step(environment, row, seen)


@pytest.mark.parametrize("name", sampled(LEAKING, share=4))
def test_twenty_starts_show_what_the_python_backend_shows(name: str) -> None:
    """Whose own starts are tested on every game; an episode is cut off before each of them."""
    twenty_starts(name)


@pytest.mark.parametrize("name", ["Berzerk", "DoubleDunk"])
def test_a_start_of_a_game_that_the_emulator_sets_up_by_actions_is_exact_within_the_backend(
    name: str,
) -> None:
    """Its sticky frames are others than in Python; without them there is no difference."""
    task = game(name, frame_stack=1)
    environment, seen = built(task, 1), shown(task, 1)
    actions = random_actions(task, 40, 1)
    runs = []
    for start in (3, 4, 3):
        environment.reset(np.array([0]), np.array([start]), seen.out)
        images = [seen.pixels.tobytes()]
        for row in actions:
            step(environment, row, seen)
            images.append(seen.pixels.tobytes())
        runs.append(images)
    assert runs[0] == runs[2] != runs[1]
    firm = game(name, frame_stack=1, sticky=0.0)
    still, python = built(firm, 1), SUITE.environment(firm)
    still.reset(np.array([0]), np.array([3]), seen.out)
    ours = play(python, firm, 3, [int(row[0]) for row in actions])
    np.testing.assert_array_equal(seen.pixels[0], ours.observations[0]["pixels"])
    for t, row in enumerate(actions):
        step(still, row, seen)
        np.testing.assert_array_equal(seen.pixels[0], ours.observations[t + 1]["pixels"])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(SUITE.names()) - set(LEAKING)))
def test_twenty_starts_of_every_game_show_what_the_python_backend_shows(name: str) -> None:
    twenty_starts(name)


def test_backends_by_what_is_observed() -> None:
    assert isinstance(SUITE, VectorSuite)
    assert SUITE.vector_backends(game("Pong")) == ("native", "envpool")
    for observed in ("ram", "both"):
        task = game("Pong", observation=observed)
        assert SUITE.vector_backends(task) == ("envpool",)
        with pytest.raises(
            UnsupportedError, match=f"observation={observed} .*has no .*'native'; it has python, envpool"
        ):
            built(task, 1)
    with pytest.raises(UnsupportedError, match="'nativ'; it has python, native, envpool"):
        SUITE.vector_environment(game("Pong"), 1, "nativ", 0)


def test_an_action_that_the_game_does_not_have_is_refused() -> None:
    """And the copies can be stepped afterwards."""
    task = game("Breakout", action_set="minimal")
    environment, seen = built(task, 2), shown(task, 2)
    environment.reset(np.arange(2), np.array([1, 2]), seen.out)
    for wrong in (4, -1):
        with pytest.raises(SpaceError, match=r"actions 0 to 3; got \[0, " + str(wrong)):
            step(environment, np.array([0, wrong]), seen)
    step(environment, np.array([0, 3]), seen)
    assert np.isfinite(seen.reward).all()
    environment.close()


def test_idle_frames_drawn_by_another_rule_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a standard library that scales the twister's numbers in another way."""
    # the emulator draws 25 for this seed
    monkeypatch.setattr(native, "console_start", lambda *_: ConsoleStart(5489, 24))
    task = game("Pong")
    with pytest.raises(UnsupportedError, match="drew 25 idle frames where 24 are expected"):
        built(task, 1).reset(np.array([0]), np.array([3]), shown(task, 1).out)


def test_the_window_slides_without_an_array_on_the_side() -> None:
    stack = ImageStack(16, 4, 84, 84)
    tracemalloc.start()
    try:
        for _ in range(10):
            stack.advance()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < stack.newest[0].nbytes


def test_images_are_written_into_a_part_of_a_larger_buffer() -> None:
    task = game("Pong", frame_stack=2)
    environment = built(task, 2)
    wide = np.full((2, 5, 84, 84), 77, dtype=np.uint8)
    seen = shown(task, 2)
    seen.pixels = wide[:, 1:3]
    environment.reset(np.arange(2), np.array([3, 4]), seen.out)
    step(environment, np.array([0, 0]), seen)
    assert (wide[:, [0, 3, 4]] == 77).all()
    python, out = SUITE.environment(task), buffers(task)
    for copy, start in enumerate((3, 4)):
        python.reset(start, out)
        python.step(0, out)
        np.testing.assert_array_equal(wide[copy, 1:3], out["pixels"])


def test_a_group_is_what_the_python_backend_plays() -> None:
    """Episodes of unequal length; the copy that loses its balls first waits for the others."""
    task = replace(game("Breakout", action_set="minimal"), horizon_decisions=260)
    request = GroupRequest(0, 6, 3, Acting(explore=True), seed=2)
    found = []
    for backends in ({}, {"atari": "native"}):
        worker = RolloutWorker(TaskSet([task]), backends)
        found.append(EpisodeGroup.of(worker.run(request.job(), PolicySnapshot("random"))))
        worker.close()
    python, native = found
    assert python.terminated.any() and len(set(np.diff(python.offsets).tolist())) > 1
    assert native.summaries == python.summaries
    for name in STEP_FIELDS:
        np.testing.assert_array_equal(getattr(native, name), getattr(python, name), err_msg=name)
    # the interface takes no image of the frame in which a game ends
    last = python.offsets[1:] + np.arange(len(python))
    ended = last[[summary.terminated for summary in python.summaries]]
    same = np.ones(len(python.observations["pixels"]), dtype=bool)
    same[ended] = False
    np.testing.assert_array_equal(native.observations["pixels"][same], python.observations["pixels"][same])
    np.testing.assert_array_equal(
        native.observations["pixels"][ended, :-1], python.observations["pixels"][ended, :-1]
    )
