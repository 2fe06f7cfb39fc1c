"""What an environment raises is its own fault, whatever its class; Ctrl-C is not."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from mtrl.errors import EnvironmentFault, UnsupportedError
from mtrl.faults import UserInterrupt, environment_faults, user_interrupts
from mtrl.launch import tasks as tasks_command
from mtrl.launch.main import main
from mtrl.rollout import Acting, EpisodeJob, LocalRollouts, PolicySnapshot, RuntimeConfig
from mtrl.tasks import TaskSet
from mtrl.training import Interruptible

from .synthetic import CounterEnvironment, CounterSuite, counter_suite, counter_task


class Leaving(BaseException):
    """Of no class that anybody catches."""


OWN = [
    ValueError("x"),
    SystemExit(0),
    KeyboardInterrupt(),
    GeneratorExit(),
    asyncio.CancelledError(),
    Leaving(),
]


@pytest.fixture
def suite() -> Iterator[CounterSuite]:
    with counter_suite() as found:
        yield found


@pytest.mark.parametrize("error", OWN, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", ["__init__", "reset", "step", "close"])
def test_whatever_a_plug_in_raises_costs_its_task_alone(
    place: str, error: BaseException, suite: CounterSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = getattr(CounterEnvironment, place)

    def broken(environment: CounterEnvironment, *arguments: object) -> object:
        task = arguments[0] if place == "__init__" else environment._task
        if getattr(task, "name", "") == "counter/short":
            raise error
        return kept(environment, *arguments)

    monkeypatch.setattr(CounterEnvironment, place, broken)
    tasks = TaskSet([counter_task("counter/short"), counter_task("counter/long")])
    rollouts = LocalRollouts(tasks, RuntimeConfig(attempts=2), lambda fault, last: None)
    jobs = [EpisodeJob(k, (2,), seed=0, acting=Acting(), copies=1) for k in range(2)]
    with user_interrupts():
        results = list(rollouts.run(jobs, PolicySnapshot("random")))
        rollouts.close()
    assert [result.job.task_index for result in results] == ([0, 1] if place == "close" else [1])
    assert list(rollouts.quarantined) == ([] if place == "close" else [0])


def test_errors_that_say_what_to_do_pass() -> None:
    with pytest.raises(UnsupportedError, match="not offered"), environment_faults("a/b", "step 1"):
        raise UnsupportedError("not offered")


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_in_an_environment_ends_the_work(presses: int) -> None:
    def press() -> None:
        with environment_faults("a/b", "step 1"):
            for _ in range(presses):
                signal.raise_signal(signal.SIGINT)

    if presses == 1:
        with pytest.raises(UserInterrupt), user_interrupts():
            press()
    else:
        with Interruptible(), pytest.raises(UserInterrupt):
            press()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_without_a_handler_of_ours_passes_too() -> None:
    with pytest.raises(KeyboardInterrupt), environment_faults("a/b", "step 1"):
        signal.raise_signal(signal.SIGINT)


def test_a_handler_of_somebody_else_stays() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with user_interrupts():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        with user_interrupts(), pytest.raises(EnvironmentFault), environment_faults("a/b", "step 1"):
            raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt()])
def test_a_plug_in_that_leaves_does_not_end_a_command_without_a_word(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(arguments: object) -> int:
        raise error

    monkeypatch.setattr(tasks_command, "run", leave)
    with pytest.raises(RuntimeError, match=r"a plug-in raised .* in the middle of mtrl tasks"):
        main(["tasks"])


def test_a_command_stops_on_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tasks_command, "run", lambda arguments: signal.raise_signal(signal.SIGINT))
    assert main(["tasks"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_another_thread_changes_no_handler() -> None:
    seen: list[Callable[..., object] | int | signal.Handlers | None] = []

    def look() -> None:
        with user_interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
