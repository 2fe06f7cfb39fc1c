"""However a flight ends, its log is written and replays, and no process stays behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mtrl.deployment import read_flight, replay
from mtrl.deployment.flight.signals import ending_of, noted_signals
from mtrl.deployment.realtime.records import Column
from mtrl.errors import IntegrityError
from mtrl.faults import Terminated, UserInterrupt, user_interrupts
from mtrl.tasks import Option

from ..sweeps import sampled
from .bench_suite import BenchSuite
from .graphs import STEER, linear_artefact
from .running import RunningDeployment

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="needs /proc to find child processes; mend: run on Linux"
)

AT = 30
"""Step at which the simulated faults come."""


def to(role: str, *numbers: int) -> Callable[[RunningDeployment], None]:
    """Sends signals to one process of a deployment, half a second apart."""

    def act(running: RunningDeployment) -> None:
        process = running.process.pid if role == "session" else running.children[role]
        for number in numbers:
            os.kill(process, number)
            time.sleep(0.5)

    return act


@dataclass(frozen=True)
class Fault:
    """A fault and what it leads to."""

    status: int
    """Exit status of the command."""
    ending: str
    """Part of the cause in the log."""
    printed: str = ""
    """Part of what the command prints; the cause where empty."""
    act: Callable[[RunningDeployment], None] = field(default=lambda running: None)
    robot: str = "none"
    """Fault of the simulator at step `AT`."""
    policy: str = ""
    """Fault of the graph at the state that the simulator marks."""


FAULTS = {
    "policy killed": Fault(2, "the policy's process ended", act=to("policy", signal.SIGKILL)),
    "policy stopped": Fault(2, "policy_done did not come", act=to("policy", signal.SIGSTOP)),
    "policy raises": Fault(2, "out of data bounds", robot="mark", policy="raise"),
    "policy hangs": Fault(2, "policy_done did not come", robot="mark", policy="hang"),
    "robot killed": Fault(2, "in the robot's process", act=to("robot", signal.SIGKILL)),
    "robot stopped": Fault(
        2, "robot_done and policy_done and servo_done did not come", act=to("robot", signal.SIGSTOP)
    ),
    "robot raises": Fault(2, "the gearbox fell off", robot="raise"),
    "robot hangs": Fault(2, "robot_done and policy_done and servo_done did not come", robot="hang"),
    "Ctrl-C": Fault(130, "SIGINT", "interrupted", act=to("session", signal.SIGINT)),
    "SIGTERM": Fault(143, "SIGTERM", "flight logs are in", act=to("session", signal.SIGTERM)),
    "emergency stop": Fault(1, "over", "emergency stop, ACTION_NOT_FINITE", robot="mark", policy="nan"),
    "servo killed": Fault(2, "the servo's process ended", act=to("servo", signal.SIGKILL)),
    "logger killed": Fault(0, "over", "results and flight logs", act=to("logger", signal.SIGKILL)),
    "command time-out": Fault(
        1, "over", "the robot held by itself", act=to("servo", signal.SIGSTOP, signal.SIGCONT)
    ),
}


def fly(bench: BenchSuite, where: Path, robot: str, policy: str) -> RunningDeployment:
    """An episode of three seconds."""
    options: dict[str, Option] = {"horizon": 150, "fault": robot, "at": AT}
    linear_artefact(where / "artefact", [bench.task("bench/point", options)], STEER, fault=policy)
    return RunningDeployment(where)


@pytest.mark.parametrize("name", sampled(FAULTS, share=6))
def test_the_log_is_whole_and_replays_after(name: str, bench: BenchSuite, tmp_path: Path) -> None:
    fault = FAULTS[name]
    running = fly(bench, tmp_path, fault.robot, fault.policy)
    fault.act(running)
    printed = running.end()
    assert running.process.returncode == fault.status, printed
    assert (fault.printed or fault.ending) in " ".join(printed.split())
    assert str(running.log.parent) in "".join(printed.split())
    flight = read_flight(running.log)
    assert fault.ending in flight.ending
    commands, transitions = replay(flight)
    assert commands.tobytes() == flight.command.tobytes()
    assert len(flight.numbers) >= 10
    assert transitions[-1].after.name == ("ESTOP" if name == "emergency stop" else transitions[-1].after.name)
    seconds = flight.clock_ns * 1e-9 + flight.column(Column.SENT)[-1]
    assert abs(time.time() - seconds) < 120
    assert (tmp_path / "deployments" / "bench-point.json").exists() == (fault.status < 2)


@pytest.mark.parametrize(
    ("number", "error", "said"),
    [
        (signal.SIGINT, UserInterrupt, "SIGINT"),
        (signal.SIGTERM, Terminated, "SIGTERM"),
        (signal.SIGHUP, Terminated, "SIGHUP"),
    ],
)
def test_no_signal_interrupts_the_end_of_a_flight(
    number: signal.Signals, error: type[BaseException], said: str
) -> None:
    usual = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    # whoever started the tests may ignore some, as nohup does
    started = {of: signal.signal(of, handler) for of, handler in usual.items()}
    try:
        with user_interrupts(), noted_signals() as raise_if_noted:
            raise_if_noted()
            signal.raise_signal(number)
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(error) as raised:
                raise_if_noted()
        assert said in ending_of(raised.value)
        assert signal.getsignal(number) is usual[number]
    finally:
        for of, handler in started.items():
            signal.signal(of, handler)


def test_an_ignored_signal_stays_ignored_in_a_flight() -> None:
    """As of a flight that `nohup` started: the end of its terminal does not end it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with noted_signals() as raise_if_noted:
            signal.raise_signal(signal.SIGHUP)
            raise_if_noted()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_killed_session_leaves_a_whole_log_and_no_process(bench: BenchSuite, tmp_path: Path) -> None:
    running = fly(bench, tmp_path, "none", "")
    running.process.kill()
    running.end()
    flight = read_flight(running.log)
    assert flight.ending == "the process of deploy ended"
    assert len(flight.numbers) >= 10
    assert replay(flight)[0].tobytes() == flight.command.tobytes()


def test_a_killed_session_and_logger_leave_what_was_flushed(bench: BenchSuite, tmp_path: Path) -> None:
    running = fly(bench, tmp_path, "none", "")
    before = running.ticks()
    running.process.kill()
    os.kill(running.children["logger"], signal.SIGKILL)
    running.end()
    with pytest.raises(IntegrityError, match="unfinished=True"):
        read_flight(running.log)
    flight = read_flight(running.log, unfinished=True)
    assert flight.ending == ""
    assert len(flight.numbers) >= before >= 10
    assert replay(flight)[0].tobytes() == flight.command.tobytes()
