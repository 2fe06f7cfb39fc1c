"""Composing a configuration: Hydra's Compose API behind `key=value` overrides."""

from __future__ import annotations

import re
import typing
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
from mtrl.gradients.weightings import method_config
from mtrl.pipeline import Config, stages_of
from mtrl.structured import build, defaults, known_keys, open_keys, plain, renamed_keys

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
"""Command -> short key -> full key."""

OPEN_KEYS = ("tasks.options", "runtime.backends", "distillation.settings")
"""Keys of mappings, whose own keys are names of suites or settings of a distiller."""

CHANGEABLE = {
    "distill": ("data", "distillation", "runtime", "seed", "teacher", "tracking", "training"),
    "evaluate": ("evaluation", "runtime"),
    "export": ("seed",),
}
"""Command on a finished run -> the only settings that it may change; the rest stays as in the run."""


def compose(
    overrides: Sequence[str],
    *,
    command: str = "train",
    config_dir: Path | None = None,
    base: Mapping[str, Any] | None = None,
) -> Config:
    """The configuration of a command from `key=value` words; what no file and no word sets has the default
    of its dataclass.

    `config_dir` is a folder of the user's own groups, searched before ours. `base` is a finished run's
    configuration, which the overrides then change. Raises UnknownNameError with the nearest names for
    an unknown key or group member, ConfigError for anything else that does not fit.
    """
    if config_dir is not None and not config_dir.is_dir():
        raise ConfigError(f"--config-dir {config_dir} is not a folder")
    words = [_normalise(word, command, config_dir) for word in overrides]
    config = build(Config, _composed(words, config_dir) if base is None else _changed(base, words, command))
    stages_of(config.stages)
    return config


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
    # The files hold differences alone, so that most keys are new to Hydra; their names are checked here.
    forced = [word if _group(word) in GROUPS else f"++{word}" for word in words]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(CONFIG_ROOT), version_base="1.3"):
            composed = hydra_compose("config", overrides=[*forced, *search], return_hydra_config=True)
            kind = _agent_settings(OmegaConf.select(composed, "agent.name"))
            if kind is not None:
                _check_agent_words(words, composed.agent.name, kind)
                for word in words:
                    if _group(word) in SECTIONS:
                        _fill_section(composed, word, words, search, kind)
        surgery = composed.hydra.runtime.choices.get("gradients")
        composed = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        _use_present_keys(composed, words, kind)
        merged = _merged(_defaults(words, composed, kind), OmegaConf.to_container(composed))
        values = OmegaConf.to_container(OmegaConf.create(merged), resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"the configuration cannot be composed: {_first_lines(error)}") from error
    assert isinstance(values, dict), "the primary config must be a mapping"
    section = values["agent"].get("gradients")
    if surgery is not None and section:
        section["options"] = plain(method_config(section["method"], section["options"]))
    return {str(key): value for key, value in values.items()}


def _merged(base: Any, values: Any) -> Any:  # noqa: ANN401 - any configuration value
    """Sections merged key by key; anything else replaces what is there, and `build` checks its type."""
    if not (isinstance(base, Mapping) and isinstance(values, Mapping)):
        return values
    return {**base, **{key: _merged(base.get(key), value) for key, value in values.items()}}


def _defaults(words: Sequence[str], composed: DictConfig, kind: type | None) -> dict[str, Any]:
    """The defaults of all dataclasses, the agent's and the robot's own among them."""
    values = defaults(Config)
    if kind is not None:
        values["agent"] = {"name": composed.agent.name, **defaults(kind)}
    if any(word.startswith("robot.name=") for word in words):
        described: Robot = registry.load("robot", composed.robot.name)
        values["robot"] = plain(described.config)
    return values


def _fill_section(
    composed: DictConfig, word: str, words: Sequence[str], search: list[str], kind: type
) -> None:
    """Puts a member of a group in place of the section that it fills.

    What an experiment sets in the section gives way, the settings of another method among it; single keys
    among the words stay.
    """
    place = SECTIONS[_group(word)]
    # Without an agent the section holds the content of the group's member alone.
    chosen = hydra_compose("config", overrides=["~agent", word, *search])
    member = OmegaConf.select(chosen, place)
    if member is None:
        raise ConfigError(
            f"{word} sets nothing of {place}; the first line of its file must be '# @package {place}'"
        )
    for name in place.split(".")[1:]:
        kind = typing.get_type_hints(kind)[name]
    section = OmegaConf.merge(OmegaConf.create(defaults(kind)), OmegaConf.to_container(member))
    for key in (_group(other) for other in words):
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
        merged = OmegaConf.create(dict(base))
        merged.merge_with(OmegaConf.from_dotlist(list(words)))
        _use_present_keys(merged, words, _agent_settings(OmegaConf.select(merged, "agent.name")))
        values = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"the settings cannot be applied: {_first_lines(error)}") from error
    assert isinstance(values, dict), "a configuration must be a mapping"
    return {str(key): value for key, value in values.items()}


def _use_present_keys(config: DictConfig, words: Sequence[str], kind: type | None) -> None:
    """Puts settings under old keys under their present ones; a word stands before files, a later word before
    an earlier one, whichever key they use.
    """
    renamed = renamed_keys(Config) | (renamed_keys(kind, "agent") if kind is not None else {})
    said = {renamed.get(key, key): OmegaConf.select(config, key) for key in map(_group, words)}
    for old, key in renamed.items():
        place, _, name = old.rpartition(".")
        section = OmegaConf.select(config, place)
        if isinstance(section, DictConfig) and name in section:
            OmegaConf.set_struct(section, False)
            value = section.pop(name)
            section[key.rpartition(".")[2]] = said.get(key, value)


def _check_agent_words(words: Sequence[str], name: str, kind: type) -> None:
    """Refuses `agent.*` keys and groups of agent settings that the agent does not have."""
    known, opened = ["agent.name", *known_keys(kind, "agent")], open_keys(kind, "agent")
    for word in words:
        key = _group(word)
        if key in SECTIONS and SECTIONS[key] not in known:
            kinds = {other: _agent_settings(other) for other in registry.names("agent")}
            able = [
                other
                for other, found in kinds.items()
                if found and SECTIONS[key] in known_keys(found, "agent")
            ]
            raise UnsupportedError(
                f"{word}: agent {name!r} has no settings {SECTIONS[key]}, so it takes no {key}; "
                f"agents that do: {', '.join(able) or 'none'}"
            )
        inside = any(key.startswith(f"{mapping}.") for mapping in opened)
        if key.startswith("agent.") and key not in known and not inside:
            raise UnknownNameError("key", key, known)


def _agent_settings(name: str | None) -> type | None:
    """The dataclass of an agent's settings; None for a name that no agent has, which is refused later."""
    if name not in registry.names("agent"):
        return None
    kind: type = registry.load("agent", name).config_class
    return kind


def _first_lines(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()[:3] if line.strip())
