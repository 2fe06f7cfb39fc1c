"""One official Meta-World simulator behind mtrl's Environment contract."""

from __future__ import annotations

import mujoco
import numpy as np
import numpy.typing as npt

from mtrl.faults import ContractViolation
from mtrl.outcomes import signal
from mtrl.tasks import Buffers, Task, TaskAction, start_generator

from ..dynamics import DynamicsVariation
from ..offscreen import drawing_errors, require_backend
from ..stability import StabilityCheck
from .simulator import OBSERVED_NOW, official_simulator

FRAME_SIZE = 480
"""Height and width in pixels of what `render` shows; metaworld sizes the off-screen buffer to it."""


class MetaworldEnvironment:
    """A Meta-World task with the goal visible and starts that mean the same in every process.

    The official `reset(seed)` ignores its seed, and it runs the task's `reset_model` twice: the first
    run draws positions and moves bodies of the model, the second settles the arm among the moved bodies.
    Some tasks draw again until positions are far enough apart, so a vector forced from outside can make
    them loop for ever. Here a generator seeded by (task, start) draws in a first run that needs no
    settling (only positions are read from it), the accepted vector is frozen, and the second run is the
    official one on reset simulator data. The result is bit-equal to a fresh official environment given
    the accepted vector, at half its cost.
    """

    def __init__(self, task: Task) -> None:
        """`task` carries the options; its short name is metaworld's own, such as "reach-v3"."""
        self._repeat, self._task_name = task.action_repeat, task.name
        simulator = official_simulator(task.short_name, str(task.option("reward_version", "v2")))
        simulator._partially_observable = False
        # bounds of the observation, with which every step clips, depend on the line above and are cached
        del simulator.sawyer_observation_space
        simulator._set_task_called = True
        simulator.seeded_rand_vec = True
        simulator._reset_hand()
        self._simulator = simulator
        self._model = simulator.model
        self._data = simulator.data
        self._stability = StabilityCheck(self._data)
        self._body_positions = self._model.body_pos.copy()
        self._site_positions = self._model.site_pos.copy()
        self._attributes = {name: _own(value) for name, value in vars(simulator).items()}
        self._dynamics: DynamicsVariation | None = None
        self._renderer: mujoco.Renderer | None = None

    @property
    def start_vector(self) -> npt.NDArray[np.float64]:
        """The random vector that the task accepted at the last reset: object and goal positions, metres."""
        return np.array(self._simulator._last_rand_vec)

    def vary_dynamics(self, generator: np.random.Generator, spread: float) -> None:
        """Other masses, friction, damping and gains from the next reset on; the hand follows its own weld."""
        if self._dynamics is None:
            self._dynamics = DynamicsVariation(self._model, self._data)
        self._dynamics.draw(generator, spread)

    def reset(self, start: int, out: Buffers) -> None:
        """Places the arm, the objects and the goal where `start` puts them; `out["state"]`: float32 [39]."""
        simulator = self._simulator
        self._forget()
        simulator.np_random = start_generator(self._task_name, start)
        simulator._freeze_rand_vec = False
        simulator._reset_hand = self._place_only
        simulator.reset_model()
        del simulator._reset_hand
        simulator._freeze_rand_vec = True
        mujoco.mj_resetData(self._model, self._data)
        observation = simulator.reset_model()
        present = observation[:OBSERVED_NOW].copy()
        observation[OBSERVED_NOW : 2 * OBSERVED_NOW] = present
        simulator._prev_obs = present
        simulator.curr_path_length = 0
        out["state"][...] = observation
        self._require_stability()

    def step(self, action: TaskAction, out: Buffers) -> tuple[float, bool, bool]:
        """Holds the action for the task's repeat, each one 80th of a second; Meta-World never terminates.

        The reward is the mean over the control steps; the success signal is on when it was in any. Raises
        ContractViolation where MuJoCo found the simulation unstable and reset it.
        """
        total, success = 0.0, False
        for _ in range(self._repeat):
            observation, reward, _, _, info = self._simulator.step(action)
            total += float(reward)
            success = signal("success", info["success"]) or success
            out["state"][...] = observation
        self._require_stability()
        return total / self._repeat, False, success

    def render(self) -> npt.NDArray[np.uint8]:
        """An RGB frame [480, 480, 3]; raises UnsupportedError when no off-screen OpenGL is to be had."""
        if self._renderer is None:
            require_backend("a MuJoCo simulation")
            with drawing_errors("drawing a MuJoCo simulation"):
                self._renderer = mujoco.Renderer(self._model, FRAME_SIZE, FRAME_SIZE)
        self._renderer.update_scene(self._data, camera="corner2")
        # metaworld's corner cameras are mounted upside down
        return np.ascontiguousarray(self._renderer.render()[::-1, ::-1])

    def close(self) -> None:
        """Frees the renderer, if there is one, and the simulator."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self._simulator.close()

    def _forget(self) -> None:
        """Undoes everything that earlier episodes did to the model, the data and the Python object."""
        state = vars(self._simulator)
        for name in state.keys() - self._attributes.keys():
            del state[name]
        for name, value in self._attributes.items():
            state[name] = _own(value)
        self._model.body_pos[:] = self._body_positions
        self._model.site_pos[:] = self._site_positions
        mujoco.mj_resetData(self._model, self._data)

    def _require_stability(self) -> None:
        if self._stability.broken:
            raise ContractViolation(self._stability.reason)

    def _place_only(self) -> None:
        """Stands in for settling the arm: kinematics for the positions that the first run reads."""
        mujoco.mj_forward(self._model, self._data)


def _own(value: object) -> object:
    """A copy of an array that owns its memory; views into the simulator's data must stay views."""
    return value.copy() if isinstance(value, np.ndarray) and value.base is None else value
