"""The results of a deployment: one file per task."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..guard.guard import VIOLATIONS, GuardState
from ..guard.limits import RobotConfig
from ..realtime.latency import Latency
from ..realtime.records import Column, ControlField, EpisodeSpec, ObservationField, SessionMemory, SessionSpec
from ..realtime.roles import FLYING
from .flight import Flight, Float64, replay
from .shadow import ShadowFinding, shadow_finding

SCHEMA_VERSION = 1
"""Version of the result file's layout."""

NOTABLE_STEAL_S = 0.05
"""CPU steal time per episode above which a warning is given, in seconds."""


NOTABLE_SLIPS = 0.1
"""Share of decisions that a simulator is late for above which a warning is given."""
_REFUSALS = {
    ObservationField.DROPPED: "readings of the robot were refused: not finite, out of place, or malformed",
    ObservationField.UNSOLVED: "decisions had a target that no joint positions were found for",
    ObservationField.LIMITED: "decisions were changed by a limit of a joint or of the workspace",
}


@dataclass(frozen=True)
class EpisodeReport:
    """One episode in real time."""

    task: str
    """Full name "suite/task"."""
    mode: str
    """What was done to the robot: armed, dry-run or shadow."""
    start: int
    """Initial state."""
    seed: int
    """Seed of the policy's noise."""
    protocol_hash: str
    """Hash of the task; results with different hashes are not compared."""
    artefact: str
    """Root hash of the artefact."""
    robot: RobotConfig
    """The site's configuration."""
    rate_hz: float
    """Decisions per second."""
    success: bool
    """Whether the success signal was ever on."""
    success_at_end: bool
    """Whether it was on in the last observation."""
    terminated: bool
    """Whether the problem itself ended."""
    episode_return: float
    """Undiscounted sum of rewards."""
    decisions: int
    """Steps that the robot made."""
    ticks: int
    """Observations that called for a command; each is answered in time or is a miss."""
    deadline_misses: int
    """Observations answered after the robot's next tick was due, or never."""
    skipped: int
    """Observations that were never answered."""
    held_ticks: int
    """Ticks on which a guard replaced the action by the hold action."""
    final_state: str
    """The guard's state at the end."""
    robot_slips: int
    """Times that the simulator's own clock fell behind."""
    command_timeouts: int
    """Decisions for which the robot held by itself."""
    dropped: int
    """Readings or messages of the robot that were refused."""
    unsolved: int
    """Decisions whose target no joint positions were found for: the joints stayed."""
    limited: int
    """Decisions in which a limit of a joint or of the workspace changed what was commanded."""
    inference: Latency
    """Time per inference, over the ticks that planned."""
    observation_to_command: Latency
    """Time from the publication of an observation to that of its command, over all answered ticks."""
    log_complete: bool
    """Whether the log holds every tick and replaying the guard from it repeats the commands bit for bit."""
    seconds: float
    """Wall-clock time from the first observation to the last command."""
    real_time_priority: bool
    """Whether robot, policy and servo ran with real-time priority, the servo also in locked memory."""
    servo: Latency
    """How late the servo woke up, over all ticks of its own clock."""
    servo_missed: int
    """Ticks of the servo that came more than two of its periods late."""
    score: str = "success"
    """What the task is scored by, "success" or "return"."""
    log: str = ""
    """Path of the flight log."""
    stolen_seconds: float = 0.0
    """CPU steal time during the episode, summed over processors: misses that no
    policy could have avoided."""
    shadow: ShadowFinding | None = None
    """Of a flight in shadow, what the policy would have done otherwise."""
    warnings: tuple[str, ...] = field(default=())
    """Conditions that make the figures unreliable."""

    @property
    def outcome(self) -> str:
        """Success or failure in a word, or the return of a task that is scored by it."""
        if self.score == "return":
            return f"return {self.episode_return:.4g}"
        return "success" if self.success else "failure"

    @property
    def deadline_miss_fraction(self) -> float:
        """Misses per tick, 0 to 1."""
        return self.deadline_misses / self.ticks if self.ticks else 0.0

    @property
    def disturbed(self) -> bool:
        """Whether the guard stopped the robot, or the robot held by itself."""
        return self.final_state == GuardState.ESTOP.name or self.command_timeouts > 0

    def as_json(self) -> dict[str, Any]:
        """For the result file."""
        plain = asdict(self)
        del plain["inference"], plain["observation_to_command"], plain["servo"]
        return {
            "schema": SCHEMA_VERSION,
            **plain,
            "deadline_miss_fraction": self.deadline_miss_fraction,
            "latency": self.inference.as_json(),
            "observation_to_command": self.observation_to_command.as_json(),
            "servo_lateness": self.servo.as_json(),
        }


@dataclass(frozen=True)
class DeploymentReport:
    """A whole deployment: one episode per task."""

    artefact: str
    """Root hash of the artefact."""
    episodes: tuple[EpisodeReport, ...]
    """In the order in which they ran."""
    wall_seconds: float
    """Duration of the call of `deploy`, start-up included, in seconds."""

    @property
    def successes(self) -> int:
        """Episodes that succeeded."""
        return sum(episode.success for episode in self.episodes)

    @property
    def deadline_miss_fraction(self) -> float:
        """Misses of all episodes per tick of all episodes."""
        ticks = sum(episode.ticks for episode in self.episodes)
        return sum(episode.deadline_misses for episode in self.episodes) / ticks if ticks else 0.0


def episode_report(
    flight: Flight,
    memory: SessionMemory,
    spec: SessionSpec,
    episode: EpisodeSpec,
    *,
    rate_hz: float,
    score: str,
    stolen_seconds: float,
    log: Path,
) -> EpisodeReport:
    """Computes an episode's figures from its flight and from the shared memory at its end."""
    last = np.zeros(memory.observations.width)
    memory.observations.read(last)
    control = memory.control
    answered, late = int(control[ControlField.ANSWERED]), int(control[ControlField.LATE])
    real_time_priority = all(control[role.granted] for role in FLYING)
    lateness = memory.lateness[: int(control[ControlField.WAKE_UPS])].copy()
    decisions = int(last[ObservationField.TICK])
    skipped = decisions - answered
    complete = _is_complete(flight, answered, int(control[ControlField.ROWS]))
    flags, states = flight.numbers[:, [Column.FLAGS, Column.STATE]].astype(np.int64).T
    sent, observed = flight.column(Column.SENT), flight.column(Column.OBSERVED)
    first_answers = np.diff(flight.column(Column.TICK), prepend=-1) != 0
    planned = flight.column(Column.PLANNED) > 0
    warnings = _circumstances(spec.robot.fifo and not real_time_priority, stolen_seconds)
    final = GuardState(states[-1] if len(states) else GuardState.INIT)
    timeouts = int(last[ObservationField.TIMEOUTS])
    warnings += _disturbances(flight, final, timeouts, last)
    if (shadow := shadow_finding(flight)) is not None:
        warnings.append(f"{flight.task}: {shadow}")
    if not complete:
        warnings.append("the flight log is incomplete or does not reproduce the commands")
    return EpisodeReport(
        task=flight.task,
        mode=flight.mode,
        artefact=flight.artefact,
        robot=spec.robot,
        start=episode.start,
        seed=spec.seed,
        protocol_hash=episode.protocol_hash,
        success=bool(last[ObservationField.SUCCEEDED]),
        success_at_end=bool(last[ObservationField.SUCCESS]),
        terminated=bool(last[ObservationField.TERMINATED]),
        episode_return=float(last[ObservationField.RETURN]),
        decisions=decisions,
        ticks=decisions,
        deadline_misses=late + skipped,
        skipped=skipped,
        held_ticks=int(np.count_nonzero(flags & int(VIOLATIONS))),
        final_state=final.name,
        robot_slips=int(last[ObservationField.SLIPS]),
        command_timeouts=timeouts,
        dropped=int(last[ObservationField.DROPPED]),
        unsolved=int(last[ObservationField.UNSOLVED]),
        limited=int(last[ObservationField.LIMITED]),
        inference=Latency.of(flight.column(Column.INFERENCE_S)[planned]),
        observation_to_command=Latency.of((sent - observed)[first_answers]),
        log_complete=complete,
        seconds=float(sent[-1] - observed[0]) if len(sent) else 0.0,
        warnings=tuple(warnings),
        rate_hz=rate_hz,
        score=score,
        real_time_priority=real_time_priority,
        servo=Latency.of(lateness),
        servo_missed=int(np.count_nonzero(lateness > 2.0 / spec.robot.servo_hz)),
        stolen_seconds=stolen_seconds,
        log=str(log),
        shadow=shadow,
    )


def _is_complete(flight: Flight, answered: int, rows: int) -> bool:
    """Whether the log holds every decision answered and every row, and the guard gives its commands again."""
    commands, _ = replay(flight)
    fresh = len(np.unique(flight.column(Column.TICK)))
    return commands.tobytes() == flight.command.tobytes() and (fresh, len(commands)) == (answered, rows)


def _circumstances(refused: bool, stolen_seconds: float) -> list[str]:
    """Warnings of what the system took from an episode; `refused`: real-time priority."""
    found = []
    if refused:
        found.append(
            "the system refused real-time priority (SCHED_FIFO, locked memory); deadlines were met at normal "
            "priority or not at all"
        )
    if stolen_seconds > NOTABLE_STEAL_S:
        found.append(
            f"the host took the processor away for {stolen_seconds:.2f} s of this episode; "
            "ticks that fell into it were missed whatever the policy did"
        )
    return found


def _disturbances(flight: Flight, final: GuardState, timeouts: int, last: Float64) -> list[str]:
    """Warnings of an episode in which the robot was stopped, left without commands or had to refuse."""
    found = []
    if final is GuardState.ESTOP:
        found.append(f"{flight.task}: emergency stop, {flight.transitions[-1].cause}")
    slips, decisions = int(last[ObservationField.SLIPS]), int(last[ObservationField.TICK])
    if slips > NOTABLE_SLIPS * decisions:
        found.append(
            f"{flight.task}: the simulator was too slow for real time in {slips} of {decisions} decisions; "
            "what was held or missed is its doing"
        )
    if timeouts:
        found.append(f"{flight.task}: the robot held by itself for {timeouts} decisions without commands")
    counts = {what: int(last[column]) for column, what in _REFUSALS.items()}
    return found + [f"{flight.task}: {count} {what}" for what, count in counts.items() if count]
