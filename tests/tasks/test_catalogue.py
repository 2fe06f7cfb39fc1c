"""What suites with a catalogue share: names, sets, options and the refusal of experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest

from mtrl.errors import ConfigError, OutOfRangeError, UnknownNameError, UnsupportedError
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Catalogue, CatalogueSuite, Option, OptionRule, Score, Task
from mtrl.tasks.catalogue import catalogue_text


@dataclass(frozen=True)
class Entry:
    """What listing a counter needs."""

    limit: int


class Counters(CatalogueSuite[Entry]):
    """Two tasks that no simulator stands behind."""

    name = "counter"
    options = MappingProxyType({"repeat": OptionRule(1, low=1, high=4), "noise": OptionRule(0.0)})

    def task(self, name: str, options: Mapping[str, Option] | None = None) -> Task:
        entry, resolved = self.described(name, options)
        return Task(
            name=name,
            observation=ObservationSpec(state=1),
            action=ActionSpec(discrete=2),
            simulator_rate_hz=1.0,
            action_repeat=int(resolved["repeat"]),
            horizon_decisions=entry.limit,
            score=Score("success"),
            reward_version="1",
            options=tuple(resolved.items()),
        )


@pytest.fixture
def suite(tmp_path: Path) -> Counters:
    path = tmp_path / "catalogue.json"
    tasks = {"short": Entry(3), "long": Entry(30)}
    path.write_text(catalogue_text("counter", "none 1", tasks, {"both": ("long", "short")}))
    made = Counters()
    made.catalogue = Catalogue.read(path, Entry)
    return made


def test_names_and_sets_come_from_the_catalogue_with_the_suite_s_prefix(suite: Counters) -> None:
    assert suite.names() == ("counter/short", "counter/long")
    assert suite.sets() == {"both": ("counter/long", "counter/short")}


def test_a_task_is_its_entry_and_every_option(suite: Counters) -> None:
    entry, options = suite.described("counter/long", {"noise": 1})
    assert (entry, options) == (Entry(30), {"repeat": 1, "noise": 1.0})
    assert suite.task("counter/short", {"repeat": 2}).options == (("noise", 0.0), ("repeat", 2))
    assert suite.task("counter/short").horizon_decisions == 3


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("counter/shorts", {}, UnknownNameError, "did you mean 'counter/short'"),
        ("counter/short", {"repeats": 2}, UnknownNameError, "option of suite 'counter' 'repeats'"),
        (
            "counter/short",
            {"repeat": 5},
            OutOfRangeError,
            r"tasks\.options\.counter\.repeat=5 is out of range; expected 1 to 4",
        ),
        (
            "counter/short",
            {"repeat": "2"},
            ConfigError,
            r"tasks\.options\.counter\.repeat is a whole number; got '2'",
        ),
    ],
)
def test_what_does_not_exist_or_fit_is_refused(
    suite: Counters, name: str, options: dict[str, Option], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        suite.task(name, options)


def test_without_experts_asking_for_one_is_refused(suite: Counters) -> None:
    assert not suite.has_experts
    with pytest.raises(UnsupportedError, match="counter/long has no scripted expert"):
        suite.expert(suite.task("counter/long"))


def test_a_catalogue_in_memory_serves_as_one_in_a_file() -> None:
    suite = Counters()
    suite.catalogue = Catalogue({"short": Entry(3)}, {"one": ("short",)})
    assert suite.names() == ("counter/short",) and suite.sets() == {"one": ("counter/short",)}
    assert suite.task("counter/short").horizon_decisions == 3
