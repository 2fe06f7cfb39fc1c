"""DeepMind Control in images: shapes, order, colours, cameras, starts, and machines that cannot draw."""

from __future__ import annotations

import os
from itertools import pairwise

import cv2
import mujoco
import numpy as np
import pytest

from mtrl import registry
from mtrl.envs.dmc import SUITE, rendering
from mtrl.errors import UnknownNameError, UnsupportedError
from mtrl.tasks import Option, Task

from .episodes import buffers, first_observation, fixed_actions, play, same

needs_opengl = pytest.mark.skipif(
    not os.environ.get("MUJOCO_GL") and not os.environ.get("DISPLAY"),
    reason="drawing needs off-screen OpenGL; mend: apt-get install libosmesa6",
)
SMALL: dict[str, Option] = {"observation": "pixels", "pixel_size": 24}


def drawn(task: Task, size: int, camera: str, start: int) -> np.ndarray:
    """What dm_control's own `render` shows of the first state: [size, size, 3]."""
    environment = SUITE.environment(SUITE.task(task.name))
    first_observation(environment, SUITE.task(task.name), start)
    image: np.ndarray = environment._simulator.physics.render(size, size, camera_id=camera)
    environment.close()
    return image


def test_the_options_set_the_shape() -> None:
    shapes = {
        (): (9, 84, 84),
        (("frame_stack", 4), ("colour", "grey")): (4, 84, 84),
        (("pixel_size", 64), ("frame_stack", 1)): (3, 64, 64),
    }
    for options, shape in shapes.items():
        task = SUITE.task("dmc/walker-walk", {"observation": "pixels", **dict(options)})
        assert (task.observation.pixels, task.observation.state) == (shape, None)
    both = SUITE.task("dmc/walker-walk", {"observation": "both"}).observation
    assert (both.pixels, both.state) == ((9, 84, 84), 24)


def test_grey_images_stand_beside_atari_in_one_set() -> None:
    grey = {"observation": "pixels", "frame_stack": 4, "colour": "grey"}
    tasks = registry.task_set(["dmc/walker-walk", "atari/Boxing"], {"dmc": grey})
    assert tasks.layout.pixels_shape == (4, 84, 84)


@needs_opengl
def test_the_image_is_dm_control_s_and_the_oldest_comes_first() -> None:
    task = SUITE.task("dmc/cartpole-swingup", {**SMALL, "frame_stack": 3})
    environment = SUITE.environment(task)
    actions = [np.ones(1, dtype=np.float32)] * 4
    shown = [observation["pixels"] for observation in play(environment, task, 3, actions).observations]
    first = drawn(task, 24, "fixed", 3).transpose(2, 0, 1)
    np.testing.assert_array_equal(shown[0], np.concatenate([first] * 3))
    for before, after in pairwise(shown):
        np.testing.assert_array_equal(after[:6], before[3:])
        assert (after[6:] != before[6:]).any()
    environment.close()


@needs_opengl
def test_grey_is_the_luminance_of_the_colour_image() -> None:
    task = SUITE.task("dmc/reacher-easy", {**SMALL, "frame_stack": 2, "colour": "grey"})
    environment = SUITE.environment(task)
    pixels = first_observation(environment, task, 6)["pixels"]
    expected = cv2.cvtColor(np.ascontiguousarray(drawn(task, 24, "fixed", 6)), cv2.COLOR_RGB2GRAY)
    np.testing.assert_array_equal(pixels, np.stack([expected, expected]))
    environment.close()


@needs_opengl
@pytest.mark.parametrize("name", ["swimmer-swimmer6", "quadruped-escape", "stacker-stack_2"])
def test_a_start_s_first_image_does_not_depend_on_what_came_before(name: str) -> None:
    """Resets that move lights, make terrain and move boxes."""
    task = SUITE.task(f"dmc/{name}", {**SMALL, "observation": "both"})
    one, other = SUITE.environment(task), SUITE.environment(task)
    seen = [first_observation(one, task, start) for start in range(3)]
    for start in reversed(range(3)):
        assert same(first_observation(other, task, start), seen[start]), f"start {start}"
        play(other, task, 100 + start, fixed_actions(task, 2))
        # a large image takes larger buffers, and must not show in the small ones
        assert other.render().shape == (480, 480, 3)
    assert len({observation["pixels"].tobytes() for observation in seen}) == 3
    one.close()
    other.close()


@needs_opengl
def test_a_camera_is_chosen_by_name_and_the_usual_one_follows_the_robot() -> None:
    chosen, usual = (
        SUITE.task("dmc/quadruped-walk", {**SMALL, "frame_stack": 1, **camera})
        for camera in ({"camera": "global"}, {})
    )
    for task, camera in ((chosen, "global"), (usual, "y")):
        environment = SUITE.environment(task)
        shown = first_observation(environment, task, 2)["pixels"]
        np.testing.assert_array_equal(shown.transpose(1, 2, 0), drawn(task, 24, camera, 2))
        environment.close()


def test_every_task_has_its_usual_camera_and_an_unknown_one_is_refused() -> None:
    for name in SUITE.names():
        cameras = SUITE.entry(name).cameras
        assert "".join(cameras) and "usual" not in cameras
    with pytest.raises(UnknownNameError, match=r"camera of dmc/walker-walk 'sid'.*'side'"):
        SUITE.task("dmc/walker-walk", {"camera": "sid"})


@pytest.mark.parametrize("observation", ["pixels", "both"])
def test_without_opengl_pixels_are_refused_when_the_environment_is_built(
    observation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    task = SUITE.task("dmc/walker-walk", {"observation": observation})
    with pytest.raises(UnsupportedError, match=r"drawing dmc/walker-walk.*apt-get install libosmesa6"):
        SUITE.environment(task)


def test_an_opengl_library_that_gives_no_context_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise mujoco.FatalError("no context")

    monkeypatch.setenv("MUJOCO_GL", "glfw")
    monkeypatch.setattr(rendering, "Camera", refuse)
    task = SUITE.task("dmc/walker-walk", SMALL)
    with pytest.raises(UnsupportedError, match=r"MUJOCO_GL=glfw is set, but .*no context"):
        SUITE.environment(task)


def test_memory_counts_what_drawing_and_large_models_take() -> None:
    def megabytes(name: str, observation: str) -> float:
        return SUITE.task_megabytes(SUITE.task(name, {"observation": observation}))

    assert megabytes("dmc/walker-walk", "state") == SUITE.environment_megabytes
    assert megabytes("dmc/walker-walk", "both") > 3 * megabytes("dmc/walker-walk", "state")
    assert megabytes("dmc/dog-run", "state") > 5 * megabytes("dmc/walker-walk", "state")


@needs_opengl
def test_a_image_is_written_into_the_given_row_and_nowhere_else() -> None:
    task = SUITE.task("dmc/point_mass-easy", SMALL)
    environment = SUITE.environment(task)
    rows = np.full((3, *buffers(task)["pixels"].shape), 7, dtype=np.uint8)
    environment.reset(0, {"pixels": rows[1]})
    environment.step(np.ones(2, dtype=np.float32), {"pixels": rows[1]})
    assert (rows[0] == 7).all() and (rows[2] == 7).all()
    assert (rows[1] != 7).any()
    environment.close()
