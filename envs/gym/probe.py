"""Whether an environment can honour starts: tried once, when the first one of a task is built."""

from __future__ import annotations

import traceback
from typing import Any

import numpy as np

from mtrl.errors import EnvironmentFault, UnsupportedError

from .environment import GymnasiumEnvironment
from .returned import Breach, checked_reset, checked_step

TRIAL = "the trial of its starts, before the run"
"""When a fault met here happened."""
STEPS = 20
"""Steps of each of the three episodes that are played."""


def require_starts(environment: GymnasiumEnvironment) -> None:
    """Plays a start, another one, and the first again, and asks for equal observations, bit for bit.

    The first episode finds the environment fresh, the last one finds it used. Observations go unchecked
    here; that is for the run that plays them. Raises UnsupportedError when the episodes differ,
    EnvironmentFault when the environment fails.
    """
    name = environment.task.name
    try:
        fresh = _episode(environment, 0)
        _episode(environment, 1)
        used = _episode(environment, 0)
    except Breach as breach:
        raise EnvironmentFault(name, TRIAL, str(breach)) from breach
    except Exception as error:
        raise EnvironmentFault(name, TRIAL, "".join(traceback.format_exception(error))) from error
    if fresh != used:
        what = "first observations" if fresh[0] != used[0] else "episodes, with equal actions,"
        raise UnsupportedError(
            f"{name} cannot honour a start: two resets with one seed gave different {what} although mtrl "
            "needs equal ones to evaluate, compare and resume. Draw every random number of the environment "
            "from self.np_random, call super().reset(seed=seed) first, and restore in reset whatever an "
            "episode changes"
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
