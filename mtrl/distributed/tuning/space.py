"""A search space in the form of settings: `agent.discount=choice(0.97,0.99)`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from mtrl.errors import ConfigError, UnknownNameError

_CALL = re.compile(r"([a-z_]+)\((.*)\)", re.DOTALL)
KINDS = {
    "choice": "choice(a,b,...): one of these values, each as it would stand behind the equals sign",
    "uniform": "uniform(low,high): a number between, every one as likely",
    "log": "log(low,high): a number between, every order of magnitude as likely",
    "integer": "integer(low,high): a whole number between, both included",
}
"""Kind of a dimension -> how it is written."""


@dataclass(frozen=True)
class Dimension:
    """Values of one setting among which to search."""

    kind: str
    """One of `KINDS`."""
    values: tuple[str, ...] = ()
    """The values of a choice."""
    low: float = 0.0
    high: float = 0.0
    """Ends of an interval; they are included."""

    @property
    def ends(self) -> tuple[str, ...]:
        """Words that must be valid for every word of the dimension to be: all of a choice, or both ends."""
        return self.values or (self.word(self.low), self.word(self.high))

    def word(self, drawn: float | str) -> str:
        """A drawn value as it stands behind the equals sign."""
        if isinstance(drawn, str):
            return drawn
        return str(round(drawn)) if self.kind == "integer" else repr(float(drawn))


def dimension_of(key: str, text: str) -> Dimension | None:
    """The dimension that a setting's text names; None for a plain value.

    Raises UnknownNameError for a kind that is none, ConfigError for values that do not fit the kind.
    """
    found = _CALL.fullmatch(text)
    if found is None:
        return None
    kind, inside = found.groups()
    if kind not in KINDS:
        raise UnknownNameError(f"kind of values in {key}={text}:", kind, KINDS)
    values = _split(inside)
    if kind == "choice":
        if len(values) < 2 or len(set(values)) < len(values) or "" in values:
            raise ConfigError(f"{key}={text}: expected at least two different values; {KINDS[kind]}")
        return Dimension(kind, values)
    try:
        low, high = (float(value) for value in values)
    except ValueError as error:
        raise ConfigError(f"{key}={text}: expected two numbers; {KINDS[kind]}") from error
    whole = kind != "integer" or (low.is_integer() and high.is_integer())
    if not (math.isfinite(low) and math.isfinite(high) and low < high and whole):
        raise ConfigError(f"{key}={text}: expected a lower and a higher number; {KINDS[kind]}")
    if kind == "log" and low <= 0:
        raise ConfigError(f"{key}={text}: a logarithmic interval begins above 0")
    return Dimension(kind, low=low, high=high)


def _split(text: str) -> tuple[str, ...]:
    """The parts between commas that stand in no bracket."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return tuple(part.strip() for part in parts)
