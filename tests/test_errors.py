"""Messages say what came and what to do, and errors survive the way from a worker to the driver."""

from __future__ import annotations

import pickle
import traceback
import warnings

import pytest

from mtrl import errors
from mtrl.errors import (
    EnvironmentFault,
    IntegrityError,
    MissingExtraError,
    MtrlError,
    MtrlWarning,
    OutOfRangeError,
    UnknownNameError,
    nearest_names,
)
from mtrl.faults import Terminated, environment_faults
from mtrl.launch.main import plain_warnings

TASKS = ["metaworld/reach-v3", "metaworld/push-v3", "dmc/cartpole-swingup"]


def test_unknown_name_offers_the_nearest_names() -> None:
    error = UnknownNameError("task", "metaworld/raech-v3", TASKS)
    assert error.nearest[0] == "metaworld/reach-v3"
    assert "unknown task 'metaworld/raech-v3'" in str(error)
    assert "did you mean 'metaworld/reach-v3'" in str(error)


def test_unknown_name_lists_what_exists_when_nothing_is_near() -> None:
    error = UnknownNameError("colour", "xyzzy", (f"c{i}" for i in range(10)), "Pick one.")
    assert error.nearest == []
    assert str(error).endswith("known: c0, c1, c2, c3, c4, c5, c6, c7 and 2 more. Pick one.")
    assert str(UnknownNameError("colour", "xyzzy", "abcdefghi")).endswith("known: a, b, c, d, e, f, g, h, i")
    assert str(UnknownNameError("robot", "xyzzy", [])).endswith("known: none")
    assert str(UnknownNameError("key", "xyzzy", ["agent", "agent"])).endswith("known: agent")


def test_an_overview_stands_for_names_that_are_too_many_to_print() -> None:
    def said(count: int, name: str = "xyzzy") -> str:
        known = [f"colour-{index}" for index in range(count)]
        return str(UnknownNameError("colour", name, known, "Pick one.", overview="`paint` lists them"))

    assert said(10) == "unknown colour 'xyzzy'; `paint` lists them. Pick one."
    assert "known: colour-0" in said(9)
    assert "did you mean 'colour-3'" in said(10, "colour3") and "paint" not in said(10, "colour3")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("METAWORLD/PUSH-V3", "metaworld/push-v3"),
        ("cartpole", "dmc/cartpole-swingup"),
        ("dmc/cartpole_swingup", "dmc/cartpole-swingup"),
    ],
)
def test_nearest_names_ignore_case_and_take_parts(name: str, expected: str) -> None:
    assert nearest_names(name, iter(TASKS))[0] == expected


def test_nearest_names_are_few() -> None:
    assert len(nearest_names("task-0", [f"task-{i}" for i in range(9)])) == 3


def test_out_of_range_and_missing_extra_say_what_to_do() -> None:
    assert str(OutOfRangeError("runtime.actors", -1, "0 or more")) == (
        "runtime.actors=-1 is out of range; expected 0 or more"
    )
    assert "pip install 'mtrl-platform[envpool]'" in str(MissingExtraError("the pool", "envpool", "envpool"))


@pytest.mark.parametrize(
    "error",
    [
        UnknownNameError("task", "reach", TASKS, "hint"),
        OutOfRangeError("a", 1, "2"),
        MissingExtraError("a", "b", "c"),
        EnvironmentFault("metaworld/reach-v3", "decision 3 of copy 1", "Traceback ..."),
        IntegrityError("weights.safetensors is truncated"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_cross_process_borders_whole(error: MtrlError) -> None:
    # Ray carries exceptions this way; nothing of ours is read from such bytes.
    returned = pickle.loads(pickle.dumps(error))
    assert type(returned) is type(error)
    assert str(returned) == str(error)
    assert vars(returned) == vars(error)


def test_a_fault_is_told_in_one_line() -> None:
    def failing() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("the arm\n  fell off") from error

    try:
        failing()
    except ValueError as error:
        detail = "".join(traceback.format_exception(error))
    assert EnvironmentFault("a/b", "decision 3", detail).summary == (
        "environment of task 'a/b' failed at decision 3: ValueError: the arm"
    )
    rule = EnvironmentFault("a/b", "reset", "state[0] = 9 outside [-1, 1]")
    assert rule.summary == "environment of task 'a/b' failed at reset: state[0] = 9 outside [-1, 1]"


def test_every_error_is_one_that_commands_print() -> None:
    own = [
        item for item in vars(errors).values() if isinstance(item, type) and item.__module__ == "mtrl.errors"
    ]
    assert len(own) > 8
    assert all(issubclass(item, MtrlError) for item in own if item is not MtrlWarning)


def test_what_an_environment_raises_becomes_a_fault_with_its_traceback() -> None:
    with pytest.raises(EnvironmentFault) as raised, environment_faults("a/b", lambda: "decision 3"):
        raise ValueError("the arm fell off")
    assert (raised.value.task, raised.value.when) == ("a/b", "decision 3")
    assert raised.value.reason == "ValueError: the arm fell off"
    assert raised.value.detail.startswith(errors.TRACEBACK)
    assert isinstance(raised.value.__cause__, ValueError)


@pytest.mark.parametrize("error", [OutOfRangeError("a", 1, "2"), KeyError("x"), Terminated(143)])
def test_errors_of_ours_and_those_listed_pass_as_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, environment_faults("a/b", "reset", passing=(KeyError,)):
        raise error
    assert raised.value is error


def test_a_warning_of_ours_is_one_line_and_that_of_a_library_says_where() -> None:
    usual = warnings.formatwarning
    with plain_warnings():
        assert warnings.formatwarning("it is so", MtrlWarning, "some.py", 3) == "mtrl: note: it is so\n"
        assert "some.py:3: RuntimeWarning: overflow" in warnings.formatwarning(
            "overflow", RuntimeWarning, "some.py", 3
        )
    assert warnings.formatwarning is usual
