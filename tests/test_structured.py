"""Ranges of settings, and settings that earlier versions wrote."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from mtrl.errors import ConfigError, OutOfRangeError, UnknownNameError
from mtrl.structured import (
    BELOW_ONE,
    POSITIVE,
    SHARE,
    UNIT,
    Range,
    at_least,
    between,
    build,
    canonical,
    check,
    defaults,
)


@dataclass(frozen=True)
class Part:
    size: int = 3


@dataclass(frozen=True)
class Settings:
    rate: float = 0.5
    kind: str = "part"
    layers: tuple[int, ...] = (4,)
    limit: float | None = None
    part: Part = field(default_factory=Part)
    other: Part = field(default_factory=lambda: Part(5))
    steps: int = 1
    RENAMED: ClassVar[Mapping[str, str]] = {"speed": "rate"}
    ADDED: ClassVar[tuple[str, ...]] = ("steps",)
    REMOVED: ClassVar[Mapping[str, object]] = {"plan": True}


@pytest.mark.parametrize(
    ("allowed", "inside", "outside", "text"),
    [
        (at_least(1), 1, 0, "at least 1"),
        (at_least(0, "none"), 0, -1, "0 (none) or more"),
        (POSITIVE, 1e-9, 0, "above 0"),
        (UNIT, 1, 1.5, "0 to 1"),
        (BELOW_ONE, 0, 1, "0 to below 1"),
        (SHARE, 1, 0, "above 0, at most 1"),
        (between(8, 4096), 4096, 7, "8 to 4096"),
        (Range(0, 1, includes_low=False, includes_high=False), 0.5, 1, "above 0, below 1"),
        (Range(high=2), 2, 2.1, "at most 2"),
    ],
)
def test_a_range_holds_what_it_says(allowed: Range, inside: float, outside: float, text: str) -> None:
    assert inside in allowed and outside not in allowed and float("nan") not in allowed
    assert str(allowed) == text


def test_a_field_outside_its_range_is_named_with_its_section() -> None:
    check(Settings(), "agent", rate=POSITIVE, layers=at_least(1), limit=POSITIVE, kind=("part", "other"))
    with pytest.raises(OutOfRangeError, match=r"agent\.rate=0.0 is out of range; expected above 0"):
        check(Settings(rate=0.0), "agent", rate=POSITIVE)
    with pytest.raises(OutOfRangeError, match=r"layers=\(4, 0\) .*expected each at least 1"):
        check(Settings(layers=(4, 0)), "", layers=at_least(1))
    with pytest.raises(ConfigError, match=r"agent\.kind is 'part' or 'other'; got 'third'"):
        check(Settings(kind="third"), "agent", kind=("part", "other"))


def test_older_settings_take_their_present_form() -> None:
    older = {"speed": 0.25, "kind": "part", "layers": [4], "limit": None, "part": {"size": 9}}
    present = canonical(Settings, older)
    assert present == {**dataclasses.asdict(Settings(rate=0.25, part=Part(9))), "layers": [4]}
    assert build(Settings, older) == build(Settings, present)
    # what no class declares as added stays absent, so that it can be refused
    assert "limit" not in canonical(Settings, {"kind": "part"})
    assert defaults(Settings)["other"] == {"size": 5}


def test_a_removed_key_is_passed_over_only_where_nothing_changes() -> None:
    assert build(Settings, {"plan": True, "rate": 0.25}, "made") == Settings(0.25)
    assert canonical(Settings, {"plan": True, "rate": 0.25}) == {"rate": 0.25, "steps": 1}
    for value in (False, None, [True]):
        with pytest.raises(UnknownNameError, match=r"made\.plan"):
            build(Settings, {"plan": value}, "made")


@dataclass(frozen=True)
class Joint:
    name: str
    low: float = -1.0


@dataclass(frozen=True)
class Arm:
    joint: Joint


def test_a_missing_key_is_named_with_its_section() -> None:
    assert build(Arm, {"joint": {"name": "wrist"}}).joint.low == -1.0
    with pytest.raises(ConfigError, match=r"missing arm\.joint\.name"):
        build(Arm, {"joint": {"low": 0.0}}, "arm")
