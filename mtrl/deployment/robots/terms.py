"""The terms of `robot.yaml`: what an entry of an observation, or a dimension of an action, is on a robot.

A term is a number, or `[SCALE *] SOURCE [+ OFFSET]`, such as `0.01 * tool.x` or `position.gripper - 0.2`.

| source of an observation | value |
|---|---|
| `position.JOINT`, `velocity.JOINT`, `effort.JOINT` | the joint's state, in radians, metres and seconds |
| `tool.x`, `tool.y`, `tool.z` | where the tool is in the model's frame, in metres |
| `perception.K` | number K of the perception |
| `previous.K` | entry K of the observation before; at first its own |

`perception.4:18` and `previous.0:18` stand for one entry each from 4 or 0 up to, not including, 18.

| source of an action | meaning, for an action a in [-1, 1] |
|---|---|
| `tool.x`, `tool.y`, `tool.z` | the tool moves by SCALE a in this decision; its orientation stays |
| `shift.JOINT` | the joint moves by SCALE a in this decision |
| `position.JOINT` | the joint goes to SCALE a + OFFSET |
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mtrl.errors import ConfigError, UnknownNameError

from ..artefact.joints import Joint, Quantity

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_TERM = re.compile(
    rf"(?:(?P<scale>{_NUMBER})\s*\*\s*)?(?P<kind>[a-z]+)\.(?P<name>[^\s*+]+)"
    rf"(?:\s+(?P<sign>[+-])\s*(?P<offset>{_NUMBER}))?"
)
AXES = ("x", "y", "z")
OBSERVED = ("position", "velocity", "effort", "tool", "perception", "previous")
COMMANDED = ("tool", "shift", "position")
LONGEST = 65_536
"""Entries of the longest observation."""


@dataclass(frozen=True)
class Term:
    """One entry: scale * source + offset."""

    kind: str
    """Kind of source, the word before the dot; "constant" for a number."""
    name: str = ""
    """Joint or axis; empty where a number stands there."""
    index: int = 0
    """Index of the joint, axis or number."""
    scale: float = 1.0
    """Factor."""
    offset: float = 0.0
    """Summand; the value of a constant."""


def quantities(terms: Sequence[Term], joints: Sequence[Joint]) -> tuple[Quantity, ...]:
    """Each term in one spelling, with the unit of its source."""
    turns = {joint.name: joint.turns for joint in joints}
    return tuple(Quantity(_spelled(term), _unit(term, turns.get(term.name, False))) for term in terms)


def _spelled(term: Term) -> str:
    if term.kind == "constant":
        return repr(term.offset)
    source = f"{term.kind}.{term.name or term.index}"
    scaled = source if term.scale == 1.0 else f"{term.scale!r} * {source}"
    sign = "-" if term.offset < 0 else "+"
    return f"{scaled} {sign} {abs(term.offset)!r}" if term.offset else scaled


def _unit(term: Term, turns: bool) -> str:
    if term.kind == "tool":
        return "m"
    turning, sliding = {
        "position": ("rad", "m"),
        "shift": ("rad", "m"),
        "velocity": ("rad/s", "m/s"),
        "effort": ("N m", "N"),
    }.get(term.kind, ("", ""))
    return turning if turns else sliding


def observation_terms(texts: Sequence[str], joints: Sequence[str], perception: int) -> tuple[Term, ...]:
    """Terms of an observation, ranges written out; raises ConfigError for what is none."""
    found = [term for text in texts for term in _terms(text, OBSERVED, joints)]
    for term in found:
        limit = {"perception": perception, "previous": len(found)}.get(term.kind)
        if limit is not None and term.index >= limit:
            raise ConfigError(f"an observation names {term.kind}.{term.index}, of 0 to {limit - 1}")
    return tuple(found)


def action_terms(texts: Sequence[str], joints: Sequence[str]) -> tuple[Term, ...]:
    """Terms of an action, each of another joint or axis; raises ConfigError for what is none."""
    found = [term for text in texts for term in _terms(text, COMMANDED, joints)]
    for term in found:
        if term.offset and term.kind != "position":
            raise ConfigError(f"a {term.kind} moves by SCALE times the action, without an offset")
    places = [(term.kind == "tool", term.index) for term in found]
    if len(set(places)) < len(places):
        raise ConfigError(f"two dimensions of an action move one thing: {', '.join(texts)}")
    return tuple(found)


def _terms(text: str, kinds: Sequence[str], joints: Sequence[str]) -> list[Term]:
    text = text.strip()
    if re.fullmatch(_NUMBER, text) and "previous" in kinds:
        return [Term("constant", offset=float(text))]
    match = _TERM.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text!r} is no term such as `0.5 * position.JOINT + 0.1`")
    kind, name = match["kind"], match["name"]
    if kind not in kinds:
        raise UnknownNameError("source", kind, kinds)
    offset = float(match["offset"] or 0.0) * (-1.0 if match["sign"] == "-" else 1.0)
    term = Term(kind, name, 0, float(match["scale"] or 1.0), offset)
    if kind in ("perception", "previous"):
        first, colon, end = name.partition(":")
        if not first.isdigit() or not (end.isdigit() if colon else True) or len(first + end) > 9:
            raise ConfigError(f"{text!r}: expected {kind}.K or {kind}.K:END")
        last = int(end) if colon else int(first) + 1
        if not int(first) < last <= LONGEST:
            raise ConfigError(f"{text!r} holds no entry, or more than {LONGEST}")
        return [replace(term, name="", index=index) for index in range(int(first), last)]
    known = AXES if kind == "tool" else joints
    if name not in known:
        raise UnknownNameError("axis" if kind == "tool" else "joint", name, known)
    return [replace(term, index=list(known).index(name))]
