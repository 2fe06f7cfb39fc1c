"""Building environments of Gymnasium, and reading their spaces and rates."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

import gymnasium
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker

from mtrl.errors import ConfigError, UnknownNameError, UnsupportedError
from mtrl.faults import environment_faults

from .entry import GymEntry, Simulator
from .spaces import action_for, reader_for


def build(name: str) -> Simulator:
    """The environment of task "gym/<id>" without Gymnasium's clock, checkers and order of calls.

    The lane counts steps, the adapter checks observations, and neither calls out of order. Raises
    UnknownNameError for an id that is not registered, UnsupportedError for a missing package,
    EnvironmentFault for what the environment's own code raises.
    """
    spec = find(name, ())
    try:
        with environment_faults(name, "construction", passing=(ImportError, gymnasium.error.Error)):
            made = gymnasium.make(spec, max_episode_steps=-1, disable_env_checker=True)
    except gymnasium.error.DependencyNotInstalled as error:
        raise UnsupportedError(f"{name} needs a package that is not installed: {error}") from error
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"{name} needs the module {error.name!r}, which is not installed; install its package with pip"
        ) from error
    except ImportError as error:
        # how Gymnasium answers ids that moved to other packages
        raise UnsupportedError(f"{name} cannot be built here: {error}") from error
    return bare(made)


def bare(simulator: Simulator) -> Simulator:
    """Without the wrappers that only check the caller; each costs half a microsecond a step."""
    while isinstance(simulator, OrderEnforcing | PassiveEnvChecker):
        simulator = simulator.env
    return simulator


def find(name: str, known: Iterable[str]) -> gymnasium.envs.registration.EnvSpec:
    """Registration of an id; `module:id` imports the module first.

    `known` are names to suggest besides the registered ids. Raises UnknownNameError for an id that is
    not registered, ConfigError for a module that cannot be imported.
    """
    identifier = name.removeprefix("gym/")
    module, colon, plain = identifier.partition(":")
    before = set(gymnasium.registry)
    if colon:
        try:
            with environment_faults(name, f"the import of {module}", passing=(ModuleNotFoundError,)):
                importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"task {name}: the module {error.name!r} cannot be imported; "
                "expected gym/<module>:<id> with a module that registers the id"
            ) from error
    else:
        plain = identifier
    spec = gymnasium.registry.get(plain)
    if spec is None:
        # what the module registers is found through it alone
        registered = [f"gym/{'' if key in before else module + colon}{key}" for key in gymnasium.registry]
        raise UnknownNameError(
            "task",
            name,
            dict.fromkeys([*known, *registered]),
            "An id of another package is named gym/<module>:<id>, with the module that registers it; "
            "environments of `add_environment` exist in their own process alone.",
            overview="`mtrl tasks gym` lists the built-in ids",
        )
    return spec


def describe(name: str, known: Iterable[str]) -> GymEntry:
    """The entry of an id, read from an environment that is built for it and closed again."""
    spec = find(name, known)
    simulator = build(name)
    try:
        return entry_of(name, simulator, spec.max_episode_steps, spec.reward_threshold)
    finally:
        simulator.close()


def entry_of(
    name: str, simulator: Simulator, max_steps: int | None, reward_threshold: float | None
) -> GymEntry:
    """Spaces and rate of a built environment; raises UnsupportedError for spaces that mtrl does not map."""
    observation = reader_for(name, simulator.observation_space).spec
    action, _ = action_for(name, simulator.action_space)
    return GymEntry(
        state=observation.state,
        pixels=observation.pixels,
        continuous=action.continuous,
        discrete=action.discrete,
        rate_hz=rate_of(simulator),
        max_steps=max_steps,
        reward_threshold=None if reward_threshold is None else float(reward_threshold),
    )


def rate_of(simulator: Simulator) -> float:
    """Environment steps per simulated second, in Hz.

    Taken from the environment's `dt` or `tau` in seconds where it has one, else from the frame rate at
    which it is rendered, else 1.
    """
    inner = simulator.unwrapped
    for attribute in ("dt", "tau"):
        seconds = getattr(inner, attribute, None)
        if isinstance(seconds, int | float) and seconds > 0.0:
            return round(1.0 / seconds, 6)
    frames = inner.metadata.get("render_fps")
    return float(frames) if isinstance(frames, int | float) and frames > 0 else 1.0
