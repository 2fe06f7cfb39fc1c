"""Settings as `key=value` words: one grammar for every command.

The value of a setting that is text, such as a name or a path, is taken literally; every other value is
written in Hydra's grammar (`3`, `1e-4`, `true`, `null`, `[a, b]`, `{a: 1}`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from mtrl.errors import ConfigError

_PARSER = OverridesParser.create()

UNRECORDED = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories of what a line of a configuration cannot hold: control characters, line ends, bytes that
are no text."""

_KEY = re.compile(r"([A-Za-z_][\w.]*?)(?:\.(\w+/[\w./:@-]*?)(?:\.([A-Za-z_]\w*))?)?")
"""Sections, then the name of a task, which may hold dots, and a last section behind it."""

Tree = dict[str, Any]
"""A configuration as nested plain values."""


@dataclass(frozen=True)
class Word:
    """One `key=value` of a command line."""

    key: str
    value: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}"


def split_word(text: str) -> Word:
    """The key before the first equals sign and the value behind it; raises ConfigError for anything else."""
    key, equals, value = text.partition("=")
    if not equals or not _KEY.fullmatch(key):
        raise ConfigError(f"{text!r} is not understood; settings are written key=value, such as seed=2")
    if any(unicodedata.category(character) in UNRECORDED for character in value):
        raise ConfigError(f"{text!r} holds a control character, or a byte that is not UTF-8; leave it out")
    return Word(key, value)


def set_words(
    tree: Tree,
    words: Sequence[Word],
    text_keys: Collection[str],
    literal: Callable[[str], str] = lambda text: text,
) -> None:
    """Sets each word's value in the tree, in order; a mapping is merged into the one that is there.

    `literal` writes the value of a text so that the tree's reader takes it as it is.
    """
    for word in words:
        value = literal(word.value) if word.key in text_keys else _grammar_value(word)
        *sections, name = key_parts(word.key)
        place = tree
        for section in sections:
            if not isinstance(place.get(section), dict):
                place[section] = {}
            place = place[section]
        place[name] = merged(place.get(name), value)


def key_parts(key: str) -> list[str]:
    """The sections of a key; the name of a task is one: tasks.options.gym/ALE/Pong-v5.horizon has four."""
    found = _KEY.fullmatch(key)
    if found is None:
        return key.split(".")
    sections, *rest = found.groups()
    return [*sections.split("."), *filter(None, rest)]


def value_at(tree: Tree, key: str) -> Any:  # noqa: ANN401 - any configuration value
    """The value of a dotted key; the tree itself for an empty one, None where there is nothing."""
    value: Any = tree
    for name in key_parts(key) if key else ():
        value = value.get(name) if isinstance(value, dict) else None
    return value


def merged(base: Any, values: Any) -> Any:  # noqa: ANN401 - any configuration value
    """Sections merged key by key; anything else replaces what is there, and `build` checks its type."""
    if not (isinstance(base, dict) and isinstance(values, dict)):
        return values
    return {**base, **{key: merged(base.get(key), value) for key, value in values.items()}}


def quote(text: str) -> str:
    """Text in the quotes of Hydra's grammar."""
    return QuotedString(text, Quote.single).with_quotes()


def escaped(text: str) -> str:
    """Text that OmegaConf reads as it is, without interpolation."""
    return re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", text)


def _grammar_value(word: Word) -> Any:  # noqa: ANN401
    try:
        # the name of a task is no key of Hydra's grammar
        parsed = _PARSER.parse_override(f"value={word.value}")
    except HydraException as error:
        raise ConfigError(
            f"{word} is not understood; expected a number, true, false, null, a list [a, b] or a section "
            "{a: 1}; text with other characters stands in quotes"
        ) from error
    if parsed.is_sweep_override():
        raise ConfigError(f"{word} names several values; a list is written {word.key}=[{word.value}]")
    return parsed.value()
