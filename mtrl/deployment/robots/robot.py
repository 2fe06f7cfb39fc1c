"""The contract of a robot, and its process for a module that connects to the hardware.

A robot is a Python module run as its own process. It reads a `SessionSpec` from its standard input,
attaches the shared blocks, publishes one observation per tick in wall-clock time and acts on the newest
command, or holds on its own when commands stop. `run_robot` implements all of that.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from mtrl import registry
from mtrl.errors import ConfigError, GuardError, UnknownNameError
from mtrl.outcomes import outcome
from mtrl.ownership import own
from mtrl.tasks import Buffers, Environment, Task, TaskAction

from ..artefact.manifest import Manifest
from ..guard.limits import MODES, RobotConfig, is_choice
from ..realtime.controller import image_words
from ..realtime.processes import ProcessContext, run_child
from ..realtime.records import (
    CommandField,
    ControlField,
    EpisodeSpec,
    ObservationField,
    image_stamp,
)
from ..realtime.roles import ROBOT
from ..realtime.shared_memory import Float64, Seqlock
from ..realtime.ticker import Ticker, realtime_section

SLIP_FRACTION = 0.5
"""Part of a period by which the robot may be late before its clock is realigned."""


@dataclass(frozen=True)
class Robot:
    """An entry of the registry of robots."""

    name: str
    """Registry name."""
    module: str
    """Module that is run as the robot's process."""
    config: RobotConfig
    """Default configuration of the robot."""
    exclusive: bool = True
    """Whether one deployment at a time may use it, as of hardware; a simulation is made for each."""
    watchable: bool = False
    """Whether its environment is `Watched`, so that it can be flown in shadow and as a dry run."""
    check: Callable[[RobotConfig, Sequence[Task], str, Manifest], None] | None = None
    """Called with the configuration, the tasks, the artefact's id and its manifest before any process starts;
    raises what the files alone show to be wrong."""
    site: Callable[[RobotConfig], Path] | None = None
    """For a robot of joints: the path of its `robot.yaml`."""


def permitted_mode(robot: Robot, config: RobotConfig, mode: str) -> str:
    """One of `MODES` for a robot. Raises ConfigError where it is none, where it is not said though the robot
    is no simulation, and where the robot cannot be read without being commanded.
    """
    if mode not in ("", *MODES):
        raise UnknownNameError("mode of a deployment", mode, MODES)
    if not mode and robot.exclusive:
        raise ConfigError(
            f"robot={config.name} is no simulation: pass mtrl deploy --arm to let the artefact move it, "
            "--dry-run to do all but that, or --shadow to watch it while somebody else moves it"
        )
    if mode not in ("", "armed") and not robot.watchable:
        raise ConfigError(
            f"robot={config.name} cannot be read without being moved, so there is no {mode} of it; "
            "the robots arm and ros2 can"
        )
    if config.delay_ms and robot.exclusive:
        raise ConfigError(
            f"robot.delay_ms={config.delay_ms:g} is for simulations; robot={config.name} has its own delay"
        )
    return mode or "armed"


@contextlib.contextmanager
def own_robot(robot: Robot) -> Iterator[None]:
    """Makes this process the only user of an `exclusive` robot on this machine for the length of the block.

    Raises InUseError naming the owner.
    """
    if not robot.exclusive:
        yield
        return
    lock = Path(tempfile.gettempdir()) / "mtrl-robots" / f"{robot.name}.owner"
    with own(lock, f"robot {robot.name!r}", shared=True):
        yield


@runtime_checkable
class Measured(Protocol):
    """An environment that knows how old its observation is and what it refused, as of hardware."""

    observed_at: float
    """When the oldest part of the newest observation was measured; seconds of time.monotonic."""
    dropped: int
    """Readings or messages that were refused."""
    unsolved: int
    """Decisions of this episode whose target no joints were found for."""
    limited: int
    """Decisions of this episode in which a limit of a joint or the workspace changed what was commanded."""
    breach: int
    """Bits of `GuardFlag` for what was measured beyond a limit: the guard stops the robot for each."""

    def refresh(self, out: Buffers) -> None:
        """Writes the newest observation of the start, some time after `reset`."""


@runtime_checkable
class Watched(Protocol):
    """An environment whose robot can be read without being commanded."""

    def watch(self, action: TaskAction | None, out: Buffers) -> tuple[float, bool, bool]:
        """As `step`, but for the command: what `action` would command is computed, unless it is None, and
        not sent.
        """


@runtime_checkable
class Jointed(Protocol):
    """An environment of a robot of joints, whose joints are logged."""

    def write_joints(self, out: Float64) -> None:
        """Writes into `out` [A + 5 J + 3]: the action that was carried out last (NaN before the first),
        measured position, velocity and effort, and the state of the `JointGuard`, all of the newest reading.
        """


Connect = Callable[[Task], Environment]
"""A task -> the environment that carries it out. `reset` brings it to a start, `step` sends one command and
writes the newest observation; both return well within one period, and `close` stops the robot's motion."""
ConnectIn = Callable[[Task, ProcessContext], Environment]
"""The same for a robot that reads the session's configuration, or waits in `reset`."""


def run_robot(connect: Connect) -> None:
    """The whole of a robot's process; its module ends with a call of this under `__name__ == "__main__"`.

    Reads the session from standard input, then for every episode connects, publishes one observation per
    period and acts on the newest command, or holds when commands stop. An exception of
    `connect` or of its environment ends the process, and the session reports the traceback.
    """
    run_robot_in(lambda task, context: connect(task))


def run_robot_in(connect: ConnectIn) -> None:
    """As `run_robot`."""

    def body(context: ProcessContext) -> None:
        for number, episode in enumerate(context.spec.episodes, start=1):
            _run_episode(context, number, episode, connect)

    run_child(body)


class RobotLoop:
    """One episode of one task, ticked by a wall clock.

    Tick 0 publishes the initial state. Every later tick executes the newest command and publishes the
    result. A simulator computes a whole period at once, so a command that arrives within one period of its
    observation acts without delay, and a later one acts a period late while the robot repeats the one
    before. When commands stop for longer than the timeout, the robot holds by itself. When the host delays
    this process by more than half a period, the schedule slips and the slip is counted: hardware does not
    lose time, so a simulator's delay is not charged to the policy.
    """

    def __init__(
        self,
        environment: Environment,
        task: Task,
        config: RobotConfig,
        observations: Seqlock,
        commands: Seqlock,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        *,
        mode: str = "armed",
        joint_words: int = 0,
        images: Seqlock | None = None,
    ) -> None:
        """Publishes into `observations`, and of a task with images into `images`, and reads `commands`; clock
        and sleep are for tests.

        Every `mode` but "armed" needs an environment that is `Watched`, and `joint_words` above 0 one that is
        `Jointed`.
        """
        self._environment = environment
        self._mode = mode
        self._measured = environment if isinstance(environment, Measured) else None
        self._task = task
        self._config = config
        self._observations = observations
        self._commands = commands
        self._clock = clock
        self._period_s = 1.0 / task.rate_hz
        self._ticker = Ticker(self._period_s, clock, sleep)
        self._choices = task.action.discrete
        self._action_size = task.action.continuous or 1
        self._state_size = task.observation.state or 0
        kept = config.kept_dimensions(task.suite)
        self._keep = np.array([k in kept for k in range(self._action_size)])
        self._sent = np.zeros(self._action_size)
        self._action = np.zeros(self._action_size, dtype=np.float32)
        self._state: Buffers = {}
        if self._state_size:
            self._state["state"] = np.zeros(self._state_size, dtype=np.float32)
        shape = task.observation.pixels
        self._images = images if shape else None
        self._image = np.zeros(images.width if images is not None else 0)
        if shape:
            words = self._image[: image_words(shape)]
            self._state["pixels"] = words.view(np.uint8)[: math.prod(shape)].reshape(shape)
        self._record = np.zeros(observations.width)
        self._command = np.zeros(commands.width)
        self._jointed = environment if isinstance(environment, Jointed) else None
        self._joints = self._record[len(ObservationField) + self._state_size :][:joint_words]
        self._on_way: deque[tuple[float, Float64]] = deque()
        self._success_tick = -1

    def reset(self, start: int, episode: int) -> None:
        """Sets up the initial state; the clock does not run yet. `episode` counts from 1."""
        self._environment.reset(start, self._state)
        self._record[:] = 0
        self._record[ObservationField.EPISODE] = episode
        self._sent[:] = 0
        self._success_tick = -1

    def run(self, each_tick: Callable[[], None]) -> None:
        """Runs the episode in wall-clock time; `each_tick` may raise to end it."""
        self._ticker.start(self._clock() + self._period_s)
        self._ticker.wait()
        if self._measured is not None:
            self._measured.refresh(self._state)
        self._publish()
        while not self._record[ObservationField.ENDED]:
            each_tick()
            scheduled = self._ticker.wait()
            late = self._clock() - scheduled
            if late > SLIP_FRACTION * self._period_s:
                self._ticker.scheduled = scheduled + late
                self._record[ObservationField.SLIPS] += 1
            self._tick()

    def _tick(self) -> None:
        self._take_command()
        action = int(self._action[0]) if self._choices else self._action
        reward, terminated, success = outcome(self._act(action))
        record = self._record
        record[ObservationField.TICK] += 1
        record[ObservationField.RETURN] += reward
        record[ObservationField.SUCCESS] = success
        record[ObservationField.TERMINATED] = terminated
        tick = int(record[ObservationField.TICK])
        if success and self._success_tick < 0:
            self._success_tick = tick
            record[ObservationField.SUCCEEDED] = 1
        settled = 0 <= self._success_tick <= tick - self._config.settle_decisions
        record[ObservationField.ENDED] = terminated or settled or tick >= self._task.horizon_decisions
        self._publish()

    def _act(self, action: TaskAction) -> tuple[float, bool, bool]:
        if self._mode == "armed":
            return self._environment.step(action, self._state)
        assert isinstance(self._environment, Watched), "the session refuses other robots"
        return self._environment.watch(None if self._mode == "shadow" else action, self._state)

    def _publish(self) -> None:
        self._record[ObservationField.SCHEDULED] = self._ticker.scheduled
        if self._state_size:
            self._record[len(ObservationField) :][: self._state_size] = self._state["state"]
        if self._images is not None:
            record = self._record
            stamp = image_stamp(record[ObservationField.EPISODE], record[ObservationField.TICK])
            self._images.write(stamp, self._image)
        stamp = self._clock()
        if (measured := self._measured) is not None:
            stamp = measured.observed_at
            self._record[ObservationField.DROPPED] = measured.dropped
            self._record[ObservationField.UNSOLVED] = measured.unsolved
            self._record[ObservationField.LIMITED] = measured.limited
            self._record[ObservationField.BREACH] = measured.breach
        if self._jointed is not None and len(self._joints):
            self._jointed.write_joints(self._joints)
        self._observations.write(stamp, self._record)

    def _take_command(self) -> None:
        """Takes the newest command of this episode, or holds when commands stopped or are none."""
        stamp = self._arrived() if self._config.delay_ms else self._commands.read(self._command)
        limit = self._period_s + (self._config.command_timeout_ms + self._config.delay_ms) / 1000
        proposal = self._command[len(CommandField) :][: self._action_size]
        trusted = (
            stamp is not None
            and self._command[CommandField.EPISODE] == self._record[ObservationField.EPISODE]
            and self._clock() - stamp <= limit
            and np.isfinite(proposal).all()
            and (not self._choices or is_choice(proposal, self._choices))
        )
        if trusted and self._choices:
            self._sent[:] = proposal
        elif trusted:
            # The site's limits hold even when the guard failed.
            low, high = self._sent - self._config.rate_limit, self._sent + self._config.rate_limit
            np.clip(proposal, low, high, out=self._sent)
            np.clip(self._sent, -self._config.action_limit, self._config.action_limit, out=self._sent)
        else:
            self._record[ObservationField.TIMEOUTS] += 1
            self._sent *= self._keep
        self._action[:] = self._sent

    def _arrived(self) -> float | None:
        """The newest command that was sent `delay_ms` ago or earlier, and its stamp."""
        stamp = self._commands.read(self._command)
        on_way = self._on_way
        if stamp is not None and (not on_way or stamp > on_way[-1][0]):
            on_way.append((stamp, self._command.copy()))
        until = self._clock() - self._config.delay_ms / 1000
        while len(on_way) > 1 and on_way[1][0] <= until:
            on_way.popleft()
        if not on_way or on_way[0][0] > until:
            return None
        self._command[:] = on_way[0][1]
        return on_way[0][0]


def _run_episode(context: ProcessContext, number: int, episode: EpisodeSpec, connect: ConnectIn) -> None:
    task = registry.task(episode.task, episode.options)
    if task.protocol_hash != episode.protocol_hash:
        raise GuardError(f"this process builds {episode.task} differently from the session that started it")
    memory, config = context.memory, context.spec.robot
    with contextlib.closing(connect(task, context)) as environment:
        loop = RobotLoop(
            environment,
            task,
            config,
            memory.observations,
            memory.commands,
            mode=context.spec.mode,
            joint_words=context.spec.joint_words(task.action.continuous or 1),
            images=memory.images,
        )
        loop.reset(episode.start, number)
        memory.control[ControlField.ROBOT_READY] = number
        context.wait_for(number, ControlField.GO, ControlField.POLICY_READY, ControlField.SERVO_READY)
        with realtime_section(ROBOT.priority if config.fifo else 0) as granted:
            memory.control[ControlField.ROBOT_FIFO] = granted
            loop.run(context.raise_if_ended)
    memory.control[ControlField.ROBOT_DONE] = number
    context.wait_for(number, ControlField.POLICY_DONE, ControlField.SERVO_DONE)
