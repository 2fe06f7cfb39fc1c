"""Faults of the simulated arm on demand, between what it measures and what arrives."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..joints import Float64
from ..site import Fault


@dataclass
class Measured:
    """One measurement on its way."""

    at: float
    """When it was taken."""
    position: Float64
    """[J]"""
    velocity: Float64
    """[J]"""
    effort: Float64
    """[J]"""


class FaultyChannel:
    """Carries measurements, one a decision, with the faults of `robot.yaml`."""

    def __init__(
        self, faults: Sequence[Fault], period_s: float, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """`period_s`: time of one decision."""
        self._faults = faults
        self._period_s = period_s
        self._sleep = sleep
        self._waiting: list[tuple[int, bool, Measured]] = []

    def stopped(self, decision: int) -> bool:
        """Whether the emergency stop is pressed in this decision."""
        return any(
            fault.kind == "stop" and fault.at <= decision < fault.at + fault.ticks for fault in self._faults
        )

    def carry(self, decision: int, measured: Measured) -> list[Measured]:
        """What arrives in this decision (from 1 on), in the order of arrival."""
        dropped, due, overtaken = False, decision, False
        for fault in self._faults:
            if not fault.at <= decision < fault.at + fault.ticks:
                continue
            if fault.kind == "drop":
                dropped = True
            elif fault.kind == "delay":
                due = fault.at + fault.ticks
            elif fault.kind == "reorder":
                due, overtaken = decision + 1, True
            elif fault.kind == "nan":
                measured.position[fault.joint] = np.nan
            elif fault.kind == "jump":
                measured.position[fault.joint] += fault.amount
            elif fault.kind == "freeze" and decision == fault.at:
                self._sleep(fault.ticks * self._period_s)
        if not dropped:
            self._waiting.append((due, overtaken, measured))
        arrived = [item for item in self._waiting if item[0] <= decision]
        self._waiting = [item for item in self._waiting if item[0] > decision]
        return [item[2] for item in sorted(arrived, key=lambda item: item[1])]
