"""What a check found: a state, a sentence, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """How serious a finding is."""

    GOOD = "good"
    OPTIONAL = "optional"
    """Something that not everybody needs is not there."""
    WARNING = "warning"
    """Work goes on, slower or with a part missing."""
    BROKEN = "broken"
    """Something required does not work."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    subject: str
    """What was looked at, in a word or two: "renderer"."""
    state: State
    text: str
    """What was found, in a sentence without a full stop."""
    remedy: str = ""
    """The command or setting that mends it; given for everything that is not good."""

    def __post_init__(self) -> None:
        assert self.remedy or self.state in (State.GOOD, State.OPTIONAL), "a problem comes with its remedy"


def good(subject: str, text: str) -> Finding:
    """A finding that needs nothing."""
    return Finding(subject, State.GOOD, text)


def optional(subject: str, text: str, remedy: str) -> Finding:
    """A finding about what only some need."""
    return Finding(subject, State.OPTIONAL, text, remedy)


def warning(subject: str, text: str, remedy: str) -> Finding:
    """A finding that costs something."""
    return Finding(subject, State.WARNING, text, remedy)


def broken(subject: str, text: str, remedy: str) -> Finding:
    """A finding that stops work."""
    return Finding(subject, State.BROKEN, text, remedy)
