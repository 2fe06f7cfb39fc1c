"""Images of every suite, and clear errors where there can be none."""

from __future__ import annotations

import os

import numpy as np
import pytest

from mtrl import registry
from mtrl.envs.offscreen import drawing_errors, require_backend
from mtrl.errors import UnsupportedError

from .episodes import buffers, fixed_actions, play

needs_opengl = pytest.mark.skipif(
    not os.environ.get("MUJOCO_GL") and not os.environ.get("DISPLAY"),
    reason="drawing needs off-screen OpenGL; mend: apt-get install libosmesa6",
)
PICTURES = [
    pytest.param("metaworld/drawer-open-v3", (480, 480, 3), marks=needs_opengl),
    pytest.param("dmc/walker-walk", (480, 480, 3), marks=needs_opengl),
    pytest.param("atari/Boxing", (210, 160, 3)),
    pytest.param("point/obstacle", (300, 300, 3)),
]


@pytest.mark.parametrize(("name", "shape"), PICTURES)
def test_a_image_shows_the_present_and_changes_nothing(name: str, shape: tuple[int, ...]) -> None:
    task = registry.task(name)
    environment = registry.suite(task.suite).environment(task)
    actions = fixed_actions(task, 12)
    unseen = play(environment, task, 3, actions)
    out = buffers(task)
    environment.reset(3, out)
    frames = []
    for step, action in enumerate(actions):
        if step % 6 == 0:
            frames.append(environment.render())
        assert environment.step(action, out) == unseen.outcomes[step]
        for bucket, values in out.items():
            np.testing.assert_array_equal(values, unseen.observations[step + 1][bucket])
    frames.append(environment.render())
    for frame in frames:
        assert frame.shape == shape
        assert frame.dtype == np.uint8
        assert len(np.unique(frame.reshape(-1, 3), axis=0)) >= 4
    # a later image is another one and leaves the earlier one alone
    assert (frames[0] != frames[-1]).any()
    environment.reset(3, out)
    np.testing.assert_array_equal(environment.render(), frames[0])
    environment.close()


@needs_opengl
def test_a_metaworld_image_stands_upright() -> None:
    """The camera's own up points down in the world, so what MuJoCo draws has to be turned by half a turn."""
    mujoco = pytest.importorskip("mujoco")
    task = registry.task("metaworld/reach-v3")
    environment = registry.suite("metaworld").environment(task)
    environment.reset(0, buffers(task))
    simulator = environment._simulator  # type: ignore[attr-defined]
    axes = simulator.data.camera("corner2").xmat.reshape(3, 3)
    assert axes[2, 1] < 0.0
    renderer = mujoco.Renderer(simulator.model, 480, 480)
    renderer.update_scene(simulator.data, camera="corner2")
    np.testing.assert_array_equal(environment.render(), np.rot90(renderer.render(), 2))
    renderer.close()
    environment.close()


@pytest.mark.parametrize("name", ["metaworld/reach-v3", "dmc/walker-walk"])
def test_without_opengl_drawing_is_refused_with_advice_and_playing_goes_on(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = registry.task(name)
    environment = registry.suite(task.suite).environment(task)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    environment.reset(0, buffers(task))
    with pytest.raises(UnsupportedError, match="apt-get install libosmesa6"):
        environment.render()
    environment.step(np.zeros(task.action.continuous, dtype=np.float32), buffers(task))
    environment.close()


def test_a_backend_is_required_only_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    require_backend("a task")
    monkeypatch.delenv("MUJOCO_GL")
    with pytest.raises(UnsupportedError, match="drawing a task needs off-screen OpenGL"):
        require_backend("a task")
    monkeypatch.setenv("DISPLAY", ":0")
    require_backend("a task")


def test_an_opengl_library_that_does_not_work_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    explained = r"a task: MUJOCO_GL=osmesa is set, but .*no such symbol"
    with pytest.raises(UnsupportedError, match=explained), drawing_errors("a task"):
        raise AttributeError("no such symbol")
    # a missing package is another mistake, and without MUJOCO_GL the error is not OpenGL's
    with pytest.raises(ModuleNotFoundError), drawing_errors("a task"):
        raise ModuleNotFoundError("No module named 'mujoco'")
    monkeypatch.delenv("MUJOCO_GL")
    with pytest.raises(OSError, match="disk"), drawing_errors("a task"):
        raise OSError("disk")
