"""The processes of a session, as the session and as each process sees them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import IO

from mtrl.errors import EnvironmentFault, GuardError, MtrlError
from mtrl.rollout import child_environment
from mtrl.structured import build
from mtrl.tasks import Task

from ..guard.guard import GuardState
from .records import ControlField, SessionMemory, SessionSpec
from .roles import FLYING, LOGGER, POLICY, ROBOT, ROLES, Role

_SESSION_POLL_S = 0.02
_CHILD_POLL_S = 0.002
_GRACE_S = 2.0
_TAIL_CHARACTERS = 6000
_PATIENCE = 3.0
"""Multiple of an episode's nominal duration after which it has failed."""
_LOG_S = 10.0
"""Longest wait for the end of a log."""
_HELD_S = 2.0
"""For so long the servo goes on after the policy has ended, unless the guard stops the robot before."""


class SessionProcesses:
    """Starts, watches and always ends a process for each role; they receive JSON and file descriptors, no
    pickle.
    """

    def __init__(self, memory: SessionMemory, spec: SessionSpec) -> None:
        """`spec` goes to the standard input of every child."""
        self.memory = memory
        self.spec = spec
        self._processes: dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}
        self._policy_lost_at = 0.0

    def start(self, robot_module: str) -> None:
        """Starts `python -m` with the module of every role without waiting for it to be ready."""
        for role in ROLES.values():
            self._start(role, role.module or robot_module)

    def _start(self, role: Role, module: str) -> None:
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        # In a new session Ctrl-C in a terminal reaches only this process, which then ends its children.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=child_environment(),
            pass_fds=[pair[0] for pair in self.spec.blocks.values()],
            start_new_session=True,
        )
        self._processes[role.name] = (process, errors)
        assert process.stdin is not None
        try:
            with process.stdin as stream:
                stream.write(json.dumps(asdict(self.spec)).encode())
        except BrokenPipeError:
            self._raise_if_dead(self.spec.episodes[0].task, "start-up")

    def process_id(self, role: str) -> int:
        """Process id of a role by name."""
        return self._processes[role][0].pid

    def await_ready(self, number: int, task: Task, timeout_s: float, each_poll: Callable[[], None]) -> None:
        """Returns when the robot's initial state is set up and the policy is loaded.

        `each_poll` is called every 20 ms and may raise to end the session. Raises EnvironmentFault when the
        robot's process ended, GuardError when the policy's did or when one of them takes far too long.
        """
        ready = [ControlField.ROBOT_READY, ControlField.POLICY_LOADED]
        self._wait(number, ready, timeout_s, task.name, f"start-up of episode {number}", each_poll)

    def run_episode(
        self, number: int, task: Task, startup_timeout_s: float, each_poll: Callable[[], None]
    ) -> None:
        """Runs one episode; returns when every process is done with it. The rest is as of `await_ready`.

        When the policy's process ends, its error is raised once the guard has stopped the robot.
        """
        self.memory.control[ControlField.GO] = number
        timeout_s = _PATIENCE * task.horizon_decisions / task.rate_hz + startup_timeout_s
        done = [role.done for role in FLYING]
        self._wait(number, done, timeout_s, task.name, f"episode {number}", each_poll)

    def finish_log(self, number: int, ending: str) -> bool:
        """Has the logger finish the log of an episode with what ended it; False where it does not do so.

        All other processes are at rest.
        """
        self.memory.ending = ending
        self.memory.control[ControlField.ENDING] = number
        logger, _ = self._processes[LOGGER.name]
        deadline = time.monotonic() + _LOG_S
        while self.memory.control[ControlField.LOGGER_DONE] < number:
            if logger.poll() is not None or time.monotonic() > deadline:
                break
            time.sleep(_CHILD_POLL_S)
        return bool(self.memory.control[ControlField.LOGGER_DONE] >= number)

    def stop(self, roles: Iterable[Role] = ROLES.values()) -> None:
        """Signals every process to end, kills those that do not, and returns when `roles` have ended.

        The logger of an episode that began goes on until `finish_log`.
        """
        self.memory.control[ControlField.STOP] = 1
        deadline = time.monotonic() + _GRACE_S
        for name in {role.name for role in roles} & self._processes.keys():
            process, errors = self._processes.pop(name)
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            errors.close()

    def _wait(
        self,
        number: int,
        fields: list[ControlField],
        timeout_s: float,
        task: str,
        when: str,
        each_poll: Callable[[], None],
    ) -> None:
        """Returns when every field has reached the episode's number."""
        deadline = time.monotonic() + timeout_s
        while (self.memory.control[fields] < number).any():
            each_poll()
            self._raise_if_dead(task, when)
            if time.monotonic() > deadline:
                missing = " and ".join(
                    field.name.lower() for field in fields if self.memory.control[field] < number
                )
                raise GuardError(
                    f"{task}: {when} was not over after {timeout_s:.0f} s, {missing} did not come; does a "
                    "process hang, or is the machine overloaded? "
                    "robot.startup_timeout_s raises the limit"
                )
            time.sleep(_SESSION_POLL_S)

    def _raise_if_dead(self, task: str, when: str) -> None:
        for name, (process, errors) in self._processes.items():
            if process.poll() is None:
                continue
            # One that is done with every episode need not wait for the other.
            done = self.memory.control[ROLES[name].done] >= len(self.spec.episodes)
            if process.returncode == 0 and done:
                continue
            if name == LOGGER.name or (name == POLICY.name and self._servo_holds()):
                continue
            detail = _tail(errors) or f"no message; exit status {process.returncode}"
            if name == ROBOT.name:
                raise EnvironmentFault(task, f"{when}, in the robot's process", detail)
            held = "the servo held the robot" if name == POLICY.name else "the robot holds by itself"
            raise GuardError(f"the {name}'s process ended during {when} of {task}; {held}:\n{detail}")

    def _servo_holds(self) -> bool:
        """Whether the guard, left without a policy, is still to stop the robot."""
        now = time.monotonic()
        self._policy_lost_at = self._policy_lost_at or now
        flying = GuardState.ARMED <= self.memory.control[ControlField.STATE] < GuardState.ESTOP
        return flying and now - self._policy_lost_at < _HELD_S


class SessionEnded(BaseException):
    """The session stopped or its process ended. Not an error: only `run_child` catches it."""


class ProcessContext:
    """A child process's view of its session."""

    def __init__(self, spec: SessionSpec) -> None:
        """Attaches the shared blocks."""
        self.spec = spec
        self.memory = SessionMemory.attach(spec)

    @property
    def orphaned(self) -> bool:
        """Whether the session's process is gone."""
        return os.getppid() != self.spec.parent

    def raise_if_ended(self) -> None:
        """Raises SessionEnded when the session stopped or its process is gone. Costs a microsecond."""
        if self.memory.control[ControlField.STOP] or self.orphaned:
            raise SessionEnded

    def wait_for(self, number: int, *fields: ControlField) -> None:
        """Waits, outside a running episode, until every field has reached the episode's number."""
        while (self.memory.control[list(fields)] < number).any():
            self.raise_if_ended()
            time.sleep(_CHILD_POLL_S)


def run_child(body: Callable[[ProcessContext], None]) -> None:
    """Entry point of a child process: runs `body` on the spec from standard input until the session ends."""
    # Ctrl-C in a terminal reaches every process; the session decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    context = ProcessContext(build(SessionSpec, json.load(sys.stdin)))
    try:
        body(context)
    except SessionEnded:
        return
    except MtrlError as error:
        # a refusal says all that there is to say; a traceback is for what nobody expected
        sys.exit(str(error))


def _tail(errors: IO[bytes]) -> str:
    errors.seek(0)
    return errors.read().decode(errors="replace")[-_TAIL_CHARACTERS:].strip()
