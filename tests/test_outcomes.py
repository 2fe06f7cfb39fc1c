"""Rewards and flags are checked, never coerced: what is none of them names itself."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from mtrl.errors import TRACEBACK, EnvironmentFault
from mtrl.faults import ContractViolation, environment_faults
from mtrl.outcomes import flag, number, outcome, signal, signals
from mtrl.rollout import PythonLane
from mtrl.tasks import FixedStarts

from .rollout.helpers import LAYOUT, actions
from .synthetic import CounterEnvironment, CounterSuite, counter_task


@pytest.mark.parametrize("value", [True, False, np.True_, np.False_])
def test_flags_are_pythons_and_numpys(value: object) -> None:
    assert flag("terminated", value) is bool(value) and signal("success", value) is bool(value)
    assert flag("terminated", np.array(value)) is bool(value)


@pytest.mark.parametrize(
    "value", [0, 1, 0.0, 1.0, np.float32(1), np.int64(0), np.array(1.0), np.array(False)]
)
def test_a_success_may_be_exactly_0_or_1(value: Any) -> None:
    assert signal("success", value) is bool(value)


@pytest.mark.parametrize(
    "value", [0.3, 2, -1, float("nan"), 1 + 1e-9, "true", "", None, [], [True], np.ones(1), np.float32(0.5)]
)
def test_anything_else_is_no_signal(value: object) -> None:
    with pytest.raises(ContractViolation, match=r"success = .*; expected True, False, 0 or 1"):
        signal("success", value)
    with pytest.raises(ContractViolation, match=r"terminated = .*; expected True or False"):
        flag("terminated", value)


def test_the_signals_of_several_copies() -> None:
    assert signals("success", np.array([0.0, 1.0])).tolist() == [False, True]
    assert signals("success", np.array([False, True])).tolist() == [False, True]
    with pytest.raises(ContractViolation, match=r"success of copy 1 = 0\.3; expected"):
        signals("success", np.array([0.0, 0.3, float("nan")]))


def test_an_outcome_is_a_number_and_two_flags() -> None:
    right = (1.5, False, True)
    assert outcome(right) is right
    found = outcome((np.float32(1.5), np.False_, 1))  # type: ignore[arg-type]
    assert found == right and [type(part) for part in found] == [float, bool, bool]
    assert number("reward", True) == 1.0
    for wrong, named in [
        (("1.5", False, False), "reward is str"),
        ((np.ones(1), False, False), "reward is float64 with shape"),
        ((1.0, 1, False), r"terminated = 1 \(int\)"),
        ((1.0, False, 0.3), r"success = 0\.3 \(float\)"),
    ]:
        with pytest.raises(ContractViolation, match=named):
            outcome(wrong)  # type: ignore[arg-type]


class Returning(CounterEnvironment):
    """Returns what it was told at the second decision."""

    def __init__(self, returned: Any, cut: Any = False) -> None:
        super().__init__(counter_task(), CounterSuite())
        self.returned, self.cut, self.truncated = returned, cut, False
        self.steps = 0

    def step(self, action: Any, out: Mapping[str, Any]) -> Any:
        self.steps += 1
        found = super().step(action, out)
        self.truncated = self.cut if self.steps == 2 else False
        return self.returned if self.steps == 2 and self.returned is not None else found


@pytest.mark.parametrize(
    ("returned", "cut", "named"),
    [
        ((1.0, 0.3, False), False, "terminated = 0.3"),
        ((1.0, False, 0.3), False, "success = 0.3"),
        (("2", False, False), False, "reward is str"),
        (None, "no", "truncated = 'no'"),
    ],
)
def test_the_lane_names_a_wrong_signal_of_any_suite(returned: Any, cut: Any, named: str) -> None:
    lane = PythonLane(counter_task(), 0, LAYOUT, [Returning(returned, cut)], FixedStarts([[4]]))
    lane.begin()
    lane.step(*actions(lane, 0.1))
    with pytest.raises(EnvironmentFault, match=named) as raised:
        lane.step(*actions(lane, 0.1))
    assert TRACEBACK not in str(raised.value) and "start 4" in raised.value.when


def test_a_violation_is_a_fault_even_where_exceptions_pass() -> None:
    with (
        pytest.raises(EnvironmentFault, match="success = 2"),
        environment_faults("gym/X", "now", passing=(Exception,)),
    ):
        signal("success", 2)
    with pytest.raises(KeyError), environment_faults("gym/X", "now", passing=(Exception,)):
        MappingProxyType({})["absent"]
