"""An environment of your own by one call, for notebooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.tasks import Score

from .suite import SUITE, AddedEnvironment

if TYPE_CHECKING:
    from .building import Simulator


def add_environment(
    name: str,
    make: Callable[[], Simulator],
    *,
    horizon: int,
    score: Score | None = None,
    rate_hz: float | None = None,
    reward_version: str = "1",
) -> str:
    """Makes an environment a task of this process, and returns the task's full name "gym/<name>".

    `make` returns a new gymnasium.Env with Box or Discrete spaces; it is called once here. `horizon` is in
    environment steps. `score` is the undiscounted return unless given: `Score("success")` for an
    environment with `info["is_success"]`, `Score("return", low, high)` to normalise. `rate_hz` are steps per
    simulated second; by default what the environment says of itself. Change `reward_version` with the
    reward, so that results of different rewards are not compared. A name given again is replaced. Other
    processes do not see it: register an id with Gymnasium in a module, and name it "gym/<module>:<id>".

    Raises:
        ConfigError: for a name that Gymnasium's own ids have, or a `make` that makes something else.
        OutOfRangeError: for a horizon or a rate that is not positive.
        UnsupportedError: for spaces that mtrl does not map; the message says how to wrap them.
    """
    import gymnasium

    from .building import bare, entry_of

    if not name or name.startswith("gym/") or any(letter.isspace() for letter in name):
        raise ConfigError(f"an environment is named without 'gym/' and without spaces; got {name!r}")
    if horizon < 1:
        raise OutOfRangeError("horizon", horizon, "at least 1 environment step")
    if rate_hz is not None and not rate_hz > 0.0:
        raise OutOfRangeError("rate_hz", rate_hz, "above 0 Hz")
    full_name = f"gym/{name}"

    def checked() -> Simulator:
        made = make()
        if not isinstance(made, gymnasium.Env):
            raise ConfigError(f"{full_name}: make() returns a gymnasium.Env; got {type(made).__name__}")
        return bare(made)

    simulator = checked()
    try:
        entry = entry_of(full_name, simulator, horizon, None)
    finally:
        simulator.close()
    if rate_hz is not None:
        entry = replace(entry, rate_hz=rate_hz)
    SUITE.add(full_name, AddedEnvironment(checked, entry, score or Score("return"), reward_version))
    return full_name
