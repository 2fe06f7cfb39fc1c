"""The simulated robot: a task's simulator in wall-clock time, which does not wait for any policy."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from mtrl.tasks import Environment, Task

from .robot import Robot, RobotConfig
from .shared_memory import Seqlock
from .ticker import Ticker
from .wire import Seen, Told

ROBOT = Robot(name="sim", module="mtrl.deployment.simulated_process", config=RobotConfig())
"""The registry's robot "sim"."""

SLIP_FRACTION = 0.5
"""Part of a period by which the simulator may be late before its clock is set anew."""


class SimulatedRobot:
    """One episode of one task, ticked by a wall clock.

    Tick 0 publishes the initial state. Every later tick acts on the newest command and publishes what
    came of it. The simulator computes the period that begins at a tick at once, so a command that
    arrives within one period of its observation acts without delay, and a later one acts a period late
    while the robot repeats the one before. When commands stop for longer than the timeout the robot
    holds by itself. Real hardware does not lose time; when the host delays this process by more than
    half a period, its schedule slips and the slip is counted, so that a simulator's fault is not
    charged to the policy.
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
    ) -> None:
        """Publishes into `observations` and reads `commands`; clock and sleep are for tests."""
        self._environment = environment
        self._task = task
        self._config = config
        self._observations = observations
        self._commands = commands
        self._clock = clock
        self._period_s = 1.0 / task.rate_hz
        self._ticker = Ticker(self._period_s, 0, clock, sleep)
        self._action_size = task.action.continuous
        self._state_size = task.observation.state or 0
        kept = {
            int(item.partition(":")[2]) for item in config.hold_last if item.partition(":")[0] == task.suite
        }
        self._keep = np.array([k in kept for k in range(self._action_size)])
        self._action = np.zeros(self._action_size, dtype=np.float32)
        self._state = {"state": np.zeros(self._state_size, dtype=np.float32)}
        self._record = np.zeros(observations.width)
        self._command = np.zeros(commands.width)
        self._seen_at = -1

    def reset(self, start: int, episode: int) -> None:
        """Sets up the initial state; the clock does not run yet. `episode` counts from 1."""
        self._environment.reset(start, self._state)
        self._record[:] = 0
        self._record[Seen.EPISODE] = episode
        self._action[:] = 0
        self._seen_at = -1

    def run(self, each_tick: Callable[[], None]) -> None:
        """Runs the episode in wall-clock time; `each_tick` may raise to end it."""
        self._ticker.start(self._clock() + self._period_s)
        self._ticker.wait()
        self._publish()
        while not self._record[Seen.ENDED]:
            each_tick()
            scheduled = self._ticker.wait()
            late = self._clock() - scheduled
            if late > SLIP_FRACTION * self._period_s:
                self._ticker.realign(scheduled + late)
                self._record[Seen.SLIPS] += 1
            self._tick()

    def _tick(self) -> None:
        self._take_command()
        reward, terminated, success = self._environment.step(self._action, self._state)
        record = self._record
        record[Seen.TICK] += 1
        record[Seen.RETURN] += reward
        record[Seen.SUCCESS] = success
        record[Seen.TERMINATED] = terminated
        tick = int(record[Seen.TICK])
        if success and self._seen_at < 0:
            self._seen_at = tick
            record[Seen.SUCCEEDED] = 1
        settled = 0 <= self._seen_at <= tick - self._config.settle_decisions
        record[Seen.ENDED] = terminated or settled or tick >= self._task.horizon_decisions
        self._publish()

    def _publish(self) -> None:
        self._record[Seen.SCHEDULED] = self._ticker.scheduled
        self._record[len(Seen) : len(Seen) + self._state_size] = self._state["state"]
        self._observations.write(self._clock(), self._record)

    def _take_command(self) -> None:
        """The newest command of this episode, or the hold action when commands stopped or are not finite."""
        stamp = self._commands.read(self._command)
        limit = self._period_s + self._config.command_timeout_ms / 1000
        proposal = self._command[len(Told) : len(Told) + self._action_size]
        trusted = (
            stamp is not None
            and self._command[Told.EPISODE] == self._record[Seen.EPISODE]
            and self._clock() - stamp <= limit
            and np.isfinite(proposal).all()
        )
        if trusted:
            # The robot's own limit stands even where a guard upstream failed.
            np.clip(proposal, -1.0, 1.0, out=self._action, casting="same_kind")
        else:
            self._record[Seen.TIMEOUTS] += 1
            self._action *= self._keep
