"""A task is a protocol: its hash changes with everything that changes what a result means."""

from __future__ import annotations

import dataclasses
import re

import pytest

from mtrl import registry
from mtrl.errors import ConfigError, SpaceError, UnknownNameError
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Score, Task, TaskSet, hash_of_protocol

TASK = Task(
    name="counter/short",
    observation=ObservationSpec(state=3),
    action=ActionSpec(continuous=2),
    simulator_rate_hz=40.0,
    action_repeat=2,
    horizon_decisions=10,
    score=Score("return", 0.0, 100.0),
    reward_version="1",
    options=(("sticky", 0.25),),
)

CHANGES: dict[str, list[object]] = {
    "name": ["counter/long"],
    "observation": [ObservationSpec(state=4), ObservationSpec(state=3, pixels=(3, 8, 8))],
    "action": [ActionSpec(continuous=3), ActionSpec(discrete=2)],
    "simulator_rate_hz": [50.0],
    "action_repeat": [1],
    "horizon_decisions": [11],
    "score": [Score("success"), Score("return", -1.0, 100.0), Score("return", 0.0, 101.0)],
    "reward_version": ["2"],
    "options": [(), (("sticky", 0.0),), (("sticky", 0.25), ("stack", 4))],
}


def test_every_field_but_one_changes_the_protocol() -> None:
    assert set(CHANGES) == {field.name for field in dataclasses.fields(Task)} - {"end_on_success"}
    changed = [
        dataclasses.replace(TASK, **{key: value}).protocol_hash  # type: ignore[arg-type]
        for key, values in CHANGES.items()
        for value in values
    ]
    assert len({TASK.protocol_hash, *changed}) == len(changed) + 1


def test_training_alone_may_end_on_success() -> None:
    assert dataclasses.replace(TASK, end_on_success=True).protocol_hash == TASK.protocol_hash


def test_equal_tasks_have_equal_hashes() -> None:
    spelled = dataclasses.replace(
        TASK,
        simulator_rate_hz=40,
        score=Score("return", 0, 100),
        options=(("sticky", 0.25), ("stack", 4)),
    )
    sorted_apart = dataclasses.replace(TASK, options=(("stack", 4), ("sticky", 0.25)))
    assert spelled == sorted_apart
    assert spelled.protocol_hash == sorted_apart.protocol_hash
    assert len(TASK.protocol_hash) == 16
    assert int(TASK.protocol_hash, 16) >= 0


def test_the_hash_is_that_of_the_fields_and_stays_what_older_files_hold() -> None:
    assert TASK.protocol == {
        "name": "counter/short",
        "observation": {"state": 3, "pixels": None},
        "action": {"continuous": 2, "discrete": 0},
        "simulator_rate_hz": 40.0,
        "action_repeat": 2,
        "horizon_decisions": 10,
        "score": {"kind": "return", "low": 0.0, "high": 100.0},
        "reward_version": "1",
        "options": [["sticky", 0.25]],
    }
    assert hash_of_protocol(TASK.protocol) == TASK.protocol_hash == "5085d8261cdbfd8f"


def test_derived_values() -> None:
    assert (TASK.suite, TASK.rate_hz) == ("counter", 20.0)
    assert TASK.option("sticky", 0.0) == 0.25
    assert TASK.option("stack", 1) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "reach"}, "named 'suite/task'; got 'reach'"),
        ({"action_repeat": 0}, "at least 1"),
        ({"horizon_decisions": 0}, "at least 1"),
        ({"simulator_rate_hz": 0.0}, "positive"),
        ({"options": (("a", 1), ("a", 2))}, "given once"),
    ],
)
def test_impossible_tasks_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TASK, **changes)  # type: ignore[arg-type]


def test_scores() -> None:
    assert Score("success").normalise(episode_return=-7.0, success=True) == 1.0
    assert Score("success").normalise(episode_return=999.0, success=False) == 0.0
    # Boxing: random play 0.1, human play 12.1
    assert Score("return", 0.1, 12.1).normalise(6.1, success=False) == pytest.approx(0.5)
    assert Score("return", 0.0, 1000.0).normalise(1100.0, success=True) == pytest.approx(1.1)
    with pytest.raises(ConfigError, match="'success' or 'return'; got 'wins'"):
        Score("wins")
    with pytest.raises(ConfigError, match="range is empty"):
        Score("return", 3.0, 3.0)


def test_a_task_set_keeps_its_order_and_owns_the_layout() -> None:
    other = dataclasses.replace(TASK, name="counter/long", observation=ObservationSpec(state=5))
    tasks = TaskSet([TASK, other])
    assert (len(tasks), list(tasks), tasks[1]) == (2, [TASK, other], other)
    assert tasks.names == ("counter/short", "counter/long")
    assert [tasks.index(name) for name in tasks.names] == [0, 1]
    assert tasks.layout.state_size == 5
    assert tasks.layout.state_mask.sum(axis=1).tolist() == [3, 5]
    with pytest.raises(UnknownNameError, match="did you mean 'counter/long'"):
        tasks.index("counter/lang")


def test_the_hash_of_a_set_depends_on_its_order() -> None:
    other = dataclasses.replace(TASK, name="counter/long")
    assert TaskSet([TASK, other]).protocol_hash == TaskSet([TASK, other]).protocol_hash
    hashes = {TaskSet(tasks).protocol_hash for tasks in ([TASK], [other], [TASK, other], [other, TASK])}
    assert len(hashes) == 4


def test_impossible_sets_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one task"):
        TaskSet([])
    with pytest.raises(ConfigError, match="repeated: counter/short"):
        TaskSet([TASK, dataclasses.replace(TASK, reward_version="2")])
    small = dataclasses.replace(TASK, observation=ObservationSpec(pixels=(3, 64, 64)))
    large = dataclasses.replace(TASK, name="counter/long", observation=ObservationSpec(pixels=(4, 84, 84)))
    again = dataclasses.replace(large, name="counter/longer")
    both = r"3x64x64 \(counter/short\) and 4x84x84 \(counter/long and 1 more\)"
    with pytest.raises(SpaceError, match=both):
        TaskSet([small, large, again])


def test_the_advice_for_mixed_images_works() -> None:
    names, seen = ["dmc/cartpole-swingup", "atari/Pong"], {"observation": "pixels"}
    with pytest.raises(SpaceError, match=r"9x84x84 \(dmc/.*4x84x84 \(atari/") as raised:
        registry.task_set(names, {"dmc": seen})
    settings = dict(re.findall(r"tasks\.options\.dmc\.(\w+)=(\w+)", str(raised.value)))
    mended = registry.task_set(
        names, {"dmc": {**seen, "colour": settings["colour"], "frame_stack": int(settings["frame_stack"])}}
    )
    assert mended.layout.pixels_shape == (4, 84, 84)


def test_a_range_of_exactly_0_to_1_is_a_range() -> None:
    raw, unit = Score("return"), Score("return", 0, 1)
    assert not raw.is_normalised and unit.is_normalised and Score("success").is_normalised
    assert raw != unit == Score("return", high=1.0) == Score("return", low=0.0)
    assert raw.normalise(7.5, success=True) == unit.normalise(7.5, success=False) == 7.5
    for score in (raw, unit, Score("success"), Score("return", 0.0, 1.001), Score("return", -1.0, 1.0)):
        assert Score.from_record(**score.record()) == score
    hashes = {dataclasses.replace(TASK, score=score).protocol_hash for score in (raw, unit)}
    assert len(hashes) == 2


def test_protocols_without_a_range_keep_their_hashes() -> None:
    """Results and datasets that name a protocol by its hash stay comparable."""
    assert Score("return").record() == {"kind": "return", "low": 0.0, "high": 1.0}
    assert Score("success").record() == {"kind": "success", "low": 0.0, "high": 1.0}
    assert Score("return", 0, 1000).record() == {"kind": "return", "low": 0.0, "high": 1000.0}
