"""Composing a configuration: Hydra's Compose API behind `key=value` overrides."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mtrl import registry
from mtrl.deployment import Robot
from mtrl.errors import ConfigError, UnknownNameError
from mtrl.structured import build, known_keys, plain
from mtrl.training import AgentFactory

from .config import Config

CONFIG_ROOT = Path(__file__).resolve().parent.parent / "configs"

GROUPS = ("agent", "experiment", "robot", "runtime", "tasks", "tracking")

SHORT_KEYS = {
    "collect": {"episodes": "demonstrations.episodes"},
    "train": {
        "updates": "training.updates",
        "episodes": "evaluation.episodes",
        "steps": "online.steps",
    },
    "evaluate": {"episodes": "evaluation.episodes"},
    "distill": {"updates": "distillation.updates"},
}
"""Command -> short key -> the key it stands for."""

OPEN_KEYS = ("tasks.options", "runtime.backends")
"""Keys of mappings, whose own keys are names of suites."""

CHANGEABLE = {
    "distill": ("data", "distillation", "runtime", "seed", "tracking", "training"),
    "evaluate": ("evaluation", "runtime"),
    "export": ("seed",),
}
"""Command on a finished run -> the only settings it reads anew; the rest is what the run was made with."""


def compose(
    overrides: Sequence[str],
    *,
    command: str = "train",
    config_dir: Path | None = None,
    base: Mapping[str, Any] | None = None,
) -> Config:
    """The configuration of a command from `key=value` words.

    `config_dir` is a folder of the user's own groups, searched before ours. `base` is a finished run's
    configuration, which the overrides then change. Raises UnknownNameError with the nearest names for
    an unknown key or group member, ConfigError for anything else that does not fit.
    """
    if config_dir is not None and not config_dir.is_dir():
        raise ConfigError(f"--config-dir {config_dir} is not a folder")
    words = [_normalise(word, command, config_dir) for word in overrides]
    values = _composed(words, config_dir) if base is None else _changed(base, words, command)
    if any(word.startswith("robot=") for word in overrides) and "robot" in values:
        values["robot"] = _robot(values["robot"], words)
    return build(Config, values)


def agent_of(config: Config) -> tuple[str, AgentFactory, Any]:
    """Name, factory and settings of the configured agent."""
    settings = dict(config.agent)
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError("agent.name is missing; choose an agent with agent=NAME")
    factory: AgentFactory = registry.load("agent", name)
    return name, factory, build(factory.config_class, settings, "agent")


def members(group: str, config_dir: Path | None = None) -> list[str]:
    """Names of the YAML files of a group, ours and the user's."""
    folders = [CONFIG_ROOT / group] + ([config_dir / group] if config_dir is not None else [])
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def _normalise(word: str, command: str, config_dir: Path | None) -> str:
    key, equals, value = word.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", key):
        raise ConfigError(f"{word!r} is not understood; settings are written key=value, such as seed=2")
    key = SHORT_KEYS.get(command, {}).get(key, key)
    if key in GROUPS:
        if value in members(key, config_dir):
            return f"{key}={value}"
        if key == "tasks":
            listed = value if value.startswith("[") else f"[{value}]"
            return f"tasks.names={listed}"
        plugins = registry.names(key) if key in ("agent", "robot") else ()
        if value in plugins:
            return f"{key}.name={value}"
        known = members(key, config_dir) + list(plugins)
        raise UnknownNameError(key, value, known)
    _require_key(key, command)
    return f"{key}={value}"


def _require_key(key: str, command: str) -> None:
    """Refuses a key that no dataclass has; keys of the agent are checked once the agent is known."""
    known = known_keys(Config)
    if key in known or key.split(".", 1)[0] == "agent" or key.startswith(OPEN_KEYS):
        return
    raise UnknownNameError("key", key, [*known, *GROUPS, *SHORT_KEYS.get(command, {})])


def _composed(words: Sequence[str], config_dir: Path | None) -> dict[str, Any]:
    _check_agent_keys(words, config_dir)
    search = [f"hydra.searchpath=[file://{config_dir.resolve()}]"] if config_dir is not None else []
    # Agent settings that the group's YAML leaves to the dataclass default are new keys to Hydra.
    forced = [f"++{word}" if word.startswith(("agent.", *OPEN_KEYS)) else word for word in words]
    if any(word.startswith("agent.name=") for word in words):
        # A plug-in's agent without a YAML file starts from its dataclass, not from another agent's keys.
        forced.insert(0, "~agent")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(CONFIG_ROOT), version_base="1.3"):
            composed = hydra_compose(config_name="config", overrides=[*forced, *search])
            values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"the configuration cannot be composed: {_first_lines(error)}") from error
    assert isinstance(values, dict), "the primary config is a mapping"
    return {str(key): value for key, value in values.items()}


def _changed(base: Mapping[str, Any], words: Sequence[str], command: str) -> dict[str, Any]:
    """A finished run's configuration with single keys replaced; groups belong to a new run."""
    allowed = CHANGEABLE[command]
    for word in words:
        key, _, value = word.partition("=")
        if key == "runtime" and "runtime" in allowed:
            raise ConfigError(f"{word} chooses a whole group; on a finished run write runtime.kind={value}")
        if key.split(".", 1)[0] not in allowed or key in GROUPS:
            raise ConfigError(
                f"{key} was settled when the run was made; `mtrl {command}` changes only settings of "
                f"{', '.join(allowed)}"
            )
    try:
        merged = OmegaConf.merge(OmegaConf.create(dict(base)), OmegaConf.from_dotlist(list(words)))
        values = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"the settings cannot be applied: {_first_lines(error)}") from error
    assert isinstance(values, dict), "a configuration is a mapping"
    return {str(key): value for key, value in values.items()}


def _robot(composed: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """A plug-in's robot without a YAML file starts from the defaults that it declares."""
    if not any(word.startswith("robot.name=") for word in words):
        return dict(composed)
    described: Robot = registry.load("robot", composed["name"])
    changed = {word.partition("=")[0].partition(".")[2] for word in words if word.startswith("robot.")}
    return {**plain(described.config), **{key: composed[key] for key in changed}}


def _check_agent_keys(words: Sequence[str], config_dir: Path | None) -> None:
    """Gives `agent.*` keys the same nearest-name errors before Hydra sees them."""
    chosen = [word.partition("=")[2] for word in words if word.startswith(("agent=", "agent.name="))]
    name = chosen[-1] if chosen else "diffusion"
    if name not in registry.names("agent"):
        return
    kind = registry.load("agent", name).config_class
    assert dataclasses.is_dataclass(kind) and isinstance(kind, type), "agents declare a dataclass"
    known = ["agent.name", *known_keys(kind, "agent")]
    for word in words:
        key = word.partition("=")[0]
        if key.startswith("agent.") and key not in known:
            raise UnknownNameError("key", key, known)


def _first_lines(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()[:3] if line.strip())
