"""Weightings of task gradients by name, one method a file; those of other packages are plug-ins alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mtrl import registry
from mtrl.errors import ConfigError, UnknownNameError
from mtrl.structured import build

from .base import GramianWeighting, Weighting, WeightingInputs


def method_config(name: str, options: Mapping[str, object] | None = None) -> object:
    """The settings of the method of that name, a frozen dataclass of its own, from `options`.

    Raises UnknownNameError for a method or setting that does not exist, ConfigError and OutOfRangeError for
    values that do not fit.
    """
    kind = weighting_named(name).config_class
    known = [item.name for item in fields(kind)]
    for key in options or {}:
        if key not in known:
            raise UnknownNameError(f"setting of gradient method {name!r}", key, known)
    return build(kind, options or {}, "gradients.options")


def make_weighting(
    name: str, tasks: int, seed: int = 0, options: Mapping[str, object] | None = None
) -> Weighting[Any]:
    """The weighting of that name for K tasks; `options` are fields of its config."""
    settings = method_config(name, options)
    if tasks < 1:
        raise ConfigError(f"a weighting of {tasks} tasks; expected at least 1")
    return weighting_named(name)(settings, tasks, seed)


def weighting_named(name: str) -> type[Weighting[Any]]:
    """The class of that name, an entry point of the group mtrl.weightings; raises UnknownNameError."""
    if name not in registry.names("weighting"):
        raise UnknownNameError("gradient method", name, registry.names("weighting"))
    found: type[Weighting[Any]] = registry.load("weighting", name)
    return found


__all__ = [
    "GramianWeighting",
    "Weighting",
    "WeightingInputs",
    "make_weighting",
    "method_config",
    "weighting_named",
]
