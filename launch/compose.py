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
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mtrl import registry
from mtrl.deployment import Robot
from mtrl.errors import ConfigError, UnknownNameError, UnsupportedError
from mtrl.pipeline.config import Config
from mtrl.structured import build, known_keys, open_keys, plain

CONFIG_ROOT = Path(__file__).resolve().parent.parent / "configs"

GROUPS = ("agent", "experiment", "gradients", "robot", "runtime", "tasks", "torso", "tracking")

SECTIONS = {"gradients": "agent.gradients", "torso": "agent.network.torso"}
"""Group -> the section of the agent's settings that its members fill; `gradients.every=4` is short for
`agent.gradients.every=4`."""

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

OPEN_KEYS = ("tasks.options", "runtime.backends", "distillation.settings")
"""Keys of mappings, whose own keys are names of suites or settings of a distiller."""

CHANGEABLE = {
    "distill": ("data", "distillation", "runtime", "seed", "teacher", "tracking", "training"),
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


def members(group: str, config_dir: Path | None = None) -> list[str]:
    """Names of the YAML files of a group, ours and the user's."""
    folders = [CONFIG_ROOT / group] + ([config_dir / group] if config_dir is not None else [])
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def _normalise(word: str, command: str, config_dir: Path | None) -> str:
    key, equals, value = word.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", key):
        raise ConfigError(f"{word!r} is not understood; settings are written key=value, such as seed=2")
    key = SHORT_KEYS.get(command, {}).get(key, key)
    group, dot, rest = key.partition(".")
    if dot and group in SECTIONS:
        key = f"{SECTIONS[group]}.{rest}"
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
    search = [f"hydra.searchpath=[file://{config_dir.resolve()}]"] if config_dir is not None else []
    # Agent settings that the group's YAML leaves to the dataclass default are new keys to Hydra.
    forced = [f"++{word}" if word.startswith(("agent.", *OPEN_KEYS)) else word for word in words]
    plugged = [word for word in forced if word.startswith("++agent.name=")]
    if plugged:
        # A plug-in's agent without a YAML file starts from its dataclass, not from another agent's keys.
        forced.insert(0, "~agent")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(CONFIG_ROOT), version_base="1.3"):
            if any(word.startswith("agent.") or _group(word) in SECTIONS for word in words):
                chosen = [word for word in forced if not word.startswith("++agent.")] + plugged
                settled = hydra_compose(config_name="config", overrides=[*chosen, *search])
                _check_agent_words(words, OmegaConf.select(settled, "agent.name"))
            composed = hydra_compose(config_name="config", overrides=[*forced, *search])
            for word in words:
                if _group(word) in SECTIONS:
                    _fill_section(composed, word, words, search)
            values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"the configuration cannot be composed: {_first_lines(error)}") from error
    assert isinstance(values, dict), "the primary config is a mapping"
    return {str(key): value for key, value in values.items()}


def _fill_section(composed: DictConfig, word: str, words: Sequence[str], search: list[str]) -> None:
    """Puts a member of a group in place of the section that it fills.

    Whatever an experiment says of the section gives way, the settings of another method among it; single
    keys among the words stay.
    """
    place = SECTIONS[_group(word)]
    # Without an agent the section holds what the group's member says, and that alone.
    chosen = hydra_compose(config_name="config", overrides=["~agent", word, *search])
    member = OmegaConf.select(chosen, place)
    if member is None:
        raise ConfigError(
            f"{word} says nothing of {place}; the first line of its file must be '# @package {place}'"
        )
    section = OmegaConf.create(OmegaConf.to_container(member))
    for key in (other.partition("=")[0] for other in words):
        if key == place:
            raise ConfigError(f"{word} fills {place} already; set single keys of it: {place}.KEY=VALUE")
        if key.startswith(f"{place}."):
            OmegaConf.update(section, key[len(place) + 1 :], OmegaConf.select(composed, key), force_add=True)
    OmegaConf.update(composed, place, section, merge=False, force_add=True)


def _group(word: str) -> str:
    return word.partition("=")[0]


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


def _check_agent_words(words: Sequence[str], name: str | None) -> None:
    """Gives `agent.*` keys and groups of agent settings our errors before Hydra's."""
    if name not in registry.names("agent"):
        return
    known, opened = ["agent.name", *_agent_keys(name)], open_keys(_settings(name), "agent")
    for word in words:
        key = _group(word)
        if key in SECTIONS and SECTIONS[key] not in known:
            able = [other for other in registry.names("agent") if SECTIONS[key] in _agent_keys(other)]
            raise UnsupportedError(
                f"{word}: agent {name!r} has no settings {SECTIONS[key]}, so it takes no {key}; "
                f"agents that do: {', '.join(able) or 'none'}"
            )
        inside = any(key.startswith(f"{mapping}.") for mapping in opened)
        if key.startswith("agent.") and key not in known and not inside:
            raise UnknownNameError("key", key, known)


def _agent_keys(name: str) -> list[str]:
    return known_keys(_settings(name), "agent")


def _settings(name: str) -> type:
    kind = registry.load("agent", name).config_class
    assert dataclasses.is_dataclass(kind) and isinstance(kind, type), "agents declare a dataclass"
    return kind


def _first_lines(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()[:3] if line.strip())
