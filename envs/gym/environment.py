"""One Gymnasium environment behind mtrl's Environment contract."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError, EnvironmentFault, MissingExtraError, UnsupportedError
from mtrl.faults import ContractViolation, environment_faults
from mtrl.tasks import Buffers, Task, TaskAction, start_seed

from ..offscreen import drawing_errors, require_backend
from .contract import checked_reset, checked_step, checked_success
from .entry import Simulator
from .spaces import action_for, reader_for

if TYPE_CHECKING:
    from ..dynamics import DynamicsVariation
    from ..stability import StabilityCheck

SEEDS_PER_SPLIT = 2**31 // 3
"""Seeds stay below 2^31, which simulators in other languages take too."""
TRIAL = "the trial of its starts, before the run"
"""The phase that faults of the trial name."""
STEPS = 20
"""Steps of each of the three episodes that are played."""


class GymnasiumEnvironment:
    """Any environment with Box or Discrete spaces.

    A start becomes the seed of `reset`. Success is `info["is_success"]` or `info["success"]` where the
    environment gives one, a flag or exactly 0 or 1. What `reset` and `step` return is checked: the number of
    values, the observation against its space (`spaces` says which types it may have), a reward that is one
    finite number, flags that are booleans, and a simulation that MuJoCo did not reset by itself.
    """

    truncated: bool
    """After a step: whether the environment's own clock ended the episode."""

    def __init__(self, task: Task, simulator: Simulator, limit: int) -> None:
        """`close` closes `simulator`; `limit` is the episode's length in environment steps.

        Raises ConfigError when the spaces are not the task's.
        """
        self.task = task
        self.simulator = simulator
        self.truncated = False
        self._reader = reader_for(task.name, simulator.observation_space)
        action, self.native = action_for(task.name, simulator.action_space)
        if (self._reader.spec, action) != (task.observation, task.action):
            simulator.close()
            raise ConfigError(
                f"task {task.name} is described with {task.observation} and {task.action}, but the "
                f"environment has {self._reader.spec} and {action}; it belongs to another version"
            )
        self._repeat = task.action_repeat
        self._limit = limit
        self._start = self._decisions = self._steps = 0
        self._stability = _stability_of(simulator)
        self._dynamics: DynamicsVariation | None = None

    def seed_of(self, start: int) -> int:
        """The seed of `reset` for a start. Starts of different splits never share one."""
        drawn = int(start_seed(self.task.name, start).generate_state(1)[0])
        return 3 * (drawn % SEEDS_PER_SPLIT) + start % 3

    def vary_dynamics(self, generator: np.random.Generator, spread: float) -> None:
        """Other masses, friction, damping and gains from the next reset on.

        Raises UnsupportedError for an environment that does not simulate with MuJoCo.
        """
        if self._stability is None:
            raise UnsupportedError(
                f"the dynamics of {self.task.name} cannot be varied: MuJoCo does not simulate it. "
                "Leave dynamics_spread out for this task"
            )
        if self._dynamics is None:
            from ..dynamics import DynamicsVariation

            inner: Any = self.simulator.unwrapped
            self._dynamics = DynamicsVariation(inner.model, inner.data)
        self._dynamics.draw(generator, spread)

    def reset(self, start: int, out: Buffers) -> None:
        """Resets with the start's seed.

        Raises EnvironmentFault for anything but (observation, info) and an observation outside its space.
        """
        self._start, self._decisions, self._steps = start, 0, 0
        self.truncated = False
        try:
            observation = checked_reset(self.simulator, self.seed_of(start))
        except ContractViolation as violation:
            raise EnvironmentFault(self.task.name, f"reset to start {start}", str(violation)) from violation
        broken = self._reader.write(observation, out)
        if self._stability is not None and self._stability.broken:
            broken = self._stability.reason
        if broken:
            raise EnvironmentFault(self.task.name, f"reset to start {start}", broken)

    def step(self, action: TaskAction, out: Buffers) -> tuple[float, bool, bool]:
        """Holds the action for the task's repeat; the reward is the sum.

        Raises EnvironmentFault for an observation outside its space, for a reward that is not one finite
        number, for what else a step may not return, and where MuJoCo reset an unstable simulation.
        """
        native = self.native(action)
        self._decisions += 1
        try:
            observation, total, terminated, truncated, info = checked_step(self.simulator, native)
            if self._repeat > 1:
                self._steps += 1
                for _ in range(1, self._repeat):
                    if terminated or truncated or self._steps >= self._limit:
                        break
                    observation, reward, terminated, truncated, info = checked_step(self.simulator, native)
                    total += reward
                    self._steps += 1
            success = checked_success(info) if info else False
        except ContractViolation as violation:
            raise self._fault(str(violation)) from violation
        broken = self._reader.write(observation, out)
        if not math.isfinite(total):
            broken = f"reward = {total}" + (f"; {broken}" if broken else "")
        if self._stability is not None and self._stability.broken:
            broken = self._stability.reason
        if broken:
            raise self._fault(broken)
        self.truncated = truncated and not terminated
        return total, terminated, success

    def _fault(self, detail: str) -> EnvironmentFault:
        return EnvironmentFault(self.task.name, f"decision {self._decisions}, start {self._start}", detail)

    def render(self) -> npt.NDArray[np.uint8]:
        """An RGB frame [H, W, 3]; raises UnsupportedError when the environment or the machine cannot draw."""
        inner, name = self.simulator.unwrapped, self.task.name
        if "rgb_array" not in inner.metadata.get("render_modes", ()):
            raise UnsupportedError(
                f"{name} cannot draw itself: its metadata has no render mode 'rgb_array', "
                f"only {inner.metadata.get('render_modes', [])}"
            )
        # Environments read their mode when they draw, so it is set on the one that is being played.
        if inner.render_mode is None:
            inner.render_mode = "rgb_array"
        if hasattr(inner, "mujoco_renderer"):
            require_backend(name)
        try:
            with drawing_errors(f"drawing {name}"):
                frame: object = self.simulator.render()
        except gymnasium.error.DependencyNotInstalled as error:
            if "pygame" not in str(error):
                raise UnsupportedError(
                    f"drawing {name} needs a package that is not installed: {error}"
                ) from error
            raise MissingExtraError(f"drawing {name}", "pygame", "gym") from error
        except ModuleNotFoundError as error:
            raise UnsupportedError(
                f"drawing {name} needs the module {error.name!r}; install it with: pip install {error.name}"
            ) from error
        if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3:
            raise UnsupportedError(
                f"{name} drew {type(frame).__name__} in render mode {inner.render_mode!r}; expected an array "
                "[H, W, 3]: build it with render_mode='rgb_array'"
            )
        return np.array(frame, dtype=np.uint8)

    def close(self) -> None:
        """Frees the simulator."""
        self.simulator.close()


def _stability_of(simulator: Simulator) -> StabilityCheck | None:
    """Of an environment that simulates with MuJoCo, which only those import."""
    data = getattr(simulator.unwrapped, "data", None)
    if not type(data).__module__.startswith("mujoco."):
        return None
    from ..stability import StabilityCheck

    return StabilityCheck(data)


def require_starts(environment: GymnasiumEnvironment) -> None:
    """Plays a start, another one, and the first again, and requires equal observations, bit for bit.

    Observations are not checked against their space here. Raises UnsupportedError when the episodes differ,
    EnvironmentFault when the environment fails.
    """
    name = environment.task.name
    with environment_faults(name, TRIAL):
        fresh, _, used = (_episode(environment, start) for start in (0, 1, 0))
    if fresh != used:
        what = "first observations" if fresh[0] != used[0] else "episodes, with equal actions,"
        raise UnsupportedError(
            f"{name} cannot reset to a given start: two resets with one seed gave different {what} although "
            "mtrl needs equal ones to evaluate, compare and resume. Draw every random number of the "
            "environment from self.np_random, call super().reset(seed=seed) first, and restore in reset "
            "whatever an episode changes"
        )


def _episode(environment: GymnasiumEnvironment, start: int) -> list[object]:
    generator = np.random.default_rng(start)
    simulator = environment.simulator
    observation = checked_reset(simulator, environment.seed_of(start))
    seen: list[object] = [_bits(observation)]
    spec = environment.task.action
    for _ in range(STEPS):
        if spec.is_discrete:
            action: Any = int(generator.integers(spec.discrete))
        else:
            action = generator.uniform(-1.0, 1.0, spec.continuous).astype(np.float32)
        observation, reward, terminated, truncated, _ = checked_step(simulator, environment.native(action))
        seen.append((_bits(observation), _bits(reward), terminated, truncated))
        if terminated or truncated:
            break
    return seen


def _bits(value: Any) -> bytes:  # noqa: ANN401 - whatever the environment returned
    return np.asarray(value).tobytes()
