"""Composing a configuration: Hydra's Compose API behind `key=value` overrides."""

from __future__ import annotations

import contextlib
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mtrl import registry
from mtrl.errors import ConfigError, MtrlError, UnknownNameError, UnsupportedError
from mtrl.gradients.weightings import method_config
from mtrl.pipeline import Config, agent_of, anchored
from mtrl.rollout import ExecutionChanges
from mtrl.structured import build, defaults, known_keys, open_keys, plain, renamed_keys, text_keys

from .words import Tree, Word, escaped, merged, quote, set_words, split_word, value_at

CONFIG_ROOT = Path(__file__).resolve().parent.parent / "configs"

GROUPS = ("agent", "experiment", "gradients", "robot", "runtime", "tasks", "torso", "tracking")

SECTIONS = {"gradients": "agent.gradients", "torso": "agent.network.torso"}
"""Group -> the section of the agent's settings that its members fill; `gradients.every=4` is short for
`agent.gradients.every=4`."""

PLUGINS = {
    "agent": ("agent", "agent.name"),
    "robot": ("robot", "robot.name"),
    "gradients": ("weighting", "agent.gradients.method"),
    "torso": ("torso", "agent.network.torso.kind"),
}
"""Group -> the kind of plug-in that its members may be without a file, and the key that names one."""

SHORT_KEYS = {
    "collect": {
        "episodes": "demonstrations.episodes",
        "source": "demonstrations.source",
        "updates": "training.updates",
    },
    "train": {
        "updates": "training.updates",
        "episodes": "evaluation.episodes",
        "steps": "online.steps",
        "device": "agent.device",
    },
    "evaluate": {
        "episodes": "evaluation.episodes",
        "strict": "evaluation.strict",
        **{f"execution.{key}": f"evaluation.execution.{key}" for key in known_keys(ExecutionChanges)},
    },
    "distill": {"updates": "distillation.updates", "steps": "distillation.steps"},
}
"""Command -> short key -> full key."""

OPEN_KEYS = ("tasks.options", "runtime.backends", "distillation.settings")
"""Keys of mappings, whose own keys are names of suites or settings of a distiller."""

CHANGEABLE = {
    "distill": ("data", "distillation", "runtime", "seed", "teacher", "tracking", "training"),
    "evaluate": ("evaluation", "runtime"),
    "export": ("robot", "seed"),
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
    words = [_normalise(split_word(text), command, config_dir) for text in overrides]
    values = _composed(words, config_dir) if base is None else _changed(base, words, command)
    config = build(Config, anchored(values))
    if base is None:
        agent_of(config)
        # the user's own words, and files that they name
        registry.allow_imports(map(registry.module_of, config.tasks.names))
    return config


def members(group: str, config_dir: Path | None = None) -> list[str]:
    """Names of the YAML files of a group, ours and the user's."""
    folders = [CONFIG_ROOT / group] + ([config_dir / group] if config_dir is not None else [])
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def _normalise(word: Word, command: str, config_dir: Path | None) -> Word:
    """The word under its full key; a member of a group is left to Hydra."""
    key, value = SHORT_KEYS.get(command, {}).get(word.key, word.key), word.value
    group, dot, rest = key.partition(".")
    if dot and group in SECTIONS:
        key = f"{SECTIONS[group]}.{rest}"
    if key in GROUPS:
        if value in members(key, config_dir):
            return Word(key, value)
        if key == "tasks":
            return Word("tasks.names", value if value.startswith("[") else f"[{value}]")
        plugins = registry.names(PLUGINS[key][0]) if key in PLUGINS else ()
        if value in plugins:
            return Word(PLUGINS[key][1], value)
        known = members(key, config_dir) + list(plugins)
        raise UnknownNameError(key, value, known, _algorithm_hint(value) if key == "agent" else "")
    _require_key(key, command)
    return Word(key, value)


def _algorithm_hint(value: str) -> str:
    """How to choose an algorithm that was given as an agent, empty where no agent has it."""
    for name in registry.names("agent"):
        kind = _agent_settings(name)
        if kind is not None and "agent.algorithm" in known_keys(kind, "agent"):
            with contextlib.suppress(MtrlError):
                build(kind, {"algorithm": value}, "agent")
                return f"{value} is an algorithm of an agent: agent={name} agent.algorithm={value}"
    return ""


def _require_key(key: str, command: str) -> None:
    """Refuses a key that no dataclass has; keys of the agent are checked once the agent is known."""
    known = known_keys(Config)
    if key in known or key.split(".", 1)[0] == "agent" or key.startswith(OPEN_KEYS):
        return
    raise UnknownNameError("key", key, [*known, *GROUPS, *SHORT_KEYS.get(command, {})])


def _composed(words: Sequence[Word], config_dir: Path | None) -> Tree:
    """Hydra puts the files of the groups together, with the defaults below them and single keys above."""
    groups = [word for word in words if word.key in GROUPS]
    keys = [word for word in words if word.key not in GROUPS]
    search = []
    if config_dir is not None:
        search = [f"hydra.searchpath=[{quote(f'file://{config_dir.resolve()}')}]"]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(CONFIG_ROOT), version_base="1.3"):
            chosen = [f"{word.key}={quote(word.value)}" for word in groups]
            composed = hydra_compose("config", overrides=[*chosen, *search], return_hydra_config=True)
            surgery = composed.hydra.runtime.choices.get("gradients")
            tree = cast(
                Tree,
                OmegaConf.to_container(
                    OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
                ),
            )
            named = [word.value for word in keys if word.key == "agent.name"]
            name = named[-1] if named else value_at(tree, "agent.name")
            kind = _agent_settings(name)
            if kind is not None:
                _check_agent_words(words, name, kind)
                for word in groups:
                    if word.key in SECTIONS:
                        _fill_section(tree, word, words, search, kind)
        _set(tree, keys, kind, escaped)
        whole = OmegaConf.create(merged(_defaults(words, tree, name, kind), tree))
        values = cast(Tree, OmegaConf.to_container(whole, resolve=True, throw_on_missing=True))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"the configuration cannot be composed: {_first_lines(error)}") from error
    section = values["agent"].get("gradients")
    if surgery is not None and section:
        section["options"] = plain(method_config(section["method"], section["options"]))
    return values


def _defaults(words: Sequence[Word], tree: Tree, name: str, kind: type | None) -> Tree:
    """The defaults of all dataclasses, the agent's and the robot's own among them."""
    values = defaults(Config)
    if kind is not None:
        values["agent"] = {"name": name, **defaults(kind)}
    if any(word.key == "robot.name" for word in words):
        described = registry.load("robot", value_at(tree, "robot.name"))
        values["robot"] = plain(described.config)
    return values


def _fill_section(tree: Tree, word: Word, words: Sequence[Word], search: list[str], kind: type) -> None:
    """Puts a member of a group in place of the section that it fills.

    What an experiment sets in the section gives way, the settings of another method among it.
    """
    place = SECTIONS[word.key]
    if any(other.key == place for other in words):
        raise ConfigError(f"{word} fills {place} already; set single keys of it: {place}.KEY=VALUE")
    # Without an agent the section holds the content of the group's member alone.
    chosen = hydra_compose("config", overrides=["~agent", f"{word.key}={quote(word.value)}", *search])
    member = OmegaConf.select(chosen, place)
    if member is None:
        raise ConfigError(
            f"{word} sets nothing of {place}; the first line of its file must be '# @package {place}'"
        )
    *sections, last = place.split(".")
    for name in [*sections[1:], last]:
        kind = typing.get_type_hints(kind)[name]
    for name in sections:
        tree = tree.setdefault(name, {})
    tree[last] = merged(defaults(kind), OmegaConf.to_container(member))


def _changed(base: Mapping[str, Any], words: Sequence[Word], command: str) -> Tree:
    """A finished run's configuration with single keys replaced; groups belong to a new run."""
    allowed = CHANGEABLE[command]
    for word in words:
        if word.key == "runtime" and "runtime" in allowed:
            raise ConfigError(
                f"{word} chooses a whole group; on a finished run write runtime.kind={word.value}"
            )
        if word.key.split(".", 1)[0] not in allowed or word.key in GROUPS:
            raise ConfigError(
                f"{word.key} was settled when the run was made; `mtrl {command}` changes only settings of "
                f"{', '.join(allowed)}"
            )
    tree = plain(base)
    _set(tree, words, _agent_settings(value_at(tree, "agent.name")))
    return tree


def _set(
    tree: Tree, words: Sequence[Word], kind: type | None, literal: Callable[[str], str] = lambda text: text
) -> None:
    """Sets single keys, and puts settings under old keys under their present ones; a word stands before
    files, a later word before an earlier one, whichever key they use.
    """
    texts = [*text_keys(Config), "agent.name", *(text_keys(kind, "agent") if kind is not None else ())]
    set_words(tree, words, texts, literal)
    renamed = renamed_keys(Config) | (renamed_keys(kind, "agent") if kind is not None else {})
    said = {renamed.get(word.key, word.key): value_at(tree, word.key) for word in words}
    for old, key in renamed.items():
        place, _, name = old.rpartition(".")
        section = value_at(tree, place)
        if isinstance(section, dict) and name in section:
            value = section.pop(name)
            section[key.rpartition(".")[2]] = said.get(key, value)


def _check_agent_words(words: Sequence[Word], name: str, kind: type) -> None:
    """Refuses `agent.*` keys and groups of agent settings that the agent does not have."""
    known, opened = ["agent.name", *known_keys(kind, "agent")], open_keys(kind, "agent")
    for word in words:
        key = word.key
        if key in SECTIONS and SECTIONS[key] not in known:
            raise UnsupportedError(
                f"{word}: agent {name!r} has no settings {SECTIONS[key]}, so it takes no {key}; "
                f"agents that do: {', '.join(_agents_with(SECTIONS[key])) or 'none'}"
            )
        inside = any(key.startswith(f"{mapping}.") for mapping in opened)
        if key.startswith("agent.") and key not in known and not inside:
            able = _agents_with(key)
            if able:
                raise UnsupportedError(
                    f"{word}: agent {name!r} has no setting {key}; agents that do: {', '.join(able)}"
                )
            raise UnknownNameError("key", key, known)


def _agents_with(key: str) -> list[str]:
    """The agents that have a setting."""
    kinds = {name: _agent_settings(name) for name in registry.names("agent")}
    return [name for name, kind in kinds.items() if kind and key in known_keys(kind, "agent")]


def _agent_settings(name: str | None) -> type | None:
    """The dataclass of an agent's settings; None for a name that no agent has, which is refused later."""
    if name not in registry.names("agent"):
        return None
    kind: type = registry.load("agent", name).config_class
    return kind


def _first_lines(error: Exception) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()[:3] if line.strip())
