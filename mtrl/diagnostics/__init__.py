"""Checks of a machine: each is one small function from facts to a finding.

The modules are imported one by one, so that a missing package breaks only the checks that need it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Finding", "State", "broken", "good", "optional", "warning"]


class State(Enum):
    """How serious a finding is."""

    GOOD = "good"
    OPTIONAL = "optional"
    """An optional part is missing."""
    WARNING = "warning"
    """Everything required works, but slower or with a part missing."""
    BROKEN = "broken"
    """Something required does not work."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    subject: str
    """The part that was checked, in a word or two: "renderer"."""
    state: State
    text: str
    """A sentence without a full stop."""
    remedy: str = ""
    """The command or setting that repairs it; given for everything that is not good."""

    def __post_init__(self) -> None:
        assert self.remedy or self.state in (State.GOOD, State.OPTIONAL), "a problem comes with its remedy"


def good(subject: str, text: str) -> Finding:
    """A finding that needs no action."""
    return Finding(subject, State.GOOD, text)


def optional(subject: str, text: str, remedy: str) -> Finding:
    """A finding about an optional part."""
    return Finding(subject, State.OPTIONAL, text, remedy)


def warning(subject: str, text: str, remedy: str) -> Finding:
    """A finding that costs speed or a part."""
    return Finding(subject, State.WARNING, text, remedy)


def broken(subject: str, text: str, remedy: str) -> Finding:
    """A finding about a required part that does not work."""
    return Finding(subject, State.BROKEN, text, remedy)
