"""The simulated arm: its motion, its faults on demand, and whole deployments on it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mtrl import registry
from mtrl.deployment import (
    Guard,
    GuardConfig,
    GuardFlag,
    GuardState,
    RobotConfig,
    deploy,
    read_flight,
    replay,
    replay_joints,
)
from mtrl.deployment.realtime.records import Column
from mtrl.deployment.robots.arm.faults import FaultyChannel, Measured
from mtrl.deployment.robots.arm.robot import SHIPPED
from mtrl.deployment.robots.arm.simulation import SimulatedArm
from mtrl.deployment.robots.fit import kinematics_of, require_fit
from mtrl.deployment.robots.joint_environment import JointEnvironment
from mtrl.deployment.robots.site import Fault, Site, Workspace, read_site
from mtrl.errors import ConfigError, GuardError
from mtrl.tasks import Expert, Split, Task, start_id

from ..graphs import linear_artefact

REACH = "metaworld/reach-v3"
PERIOD_S = 1 / 80
HOME = (0.0, 0.6, 0.2)


class Clock:
    """Time that passes a decision at a time, or when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def built(site: Site, task: Task, clock: Clock) -> JointEnvironment:
    body, thought = kinematics_of(site, SHIPPED), kinematics_of(site, SHIPPED)
    assert body is not None
    return JointEnvironment(task, site, SimulatedArm(site, task, body, clock, clock.sleep), thought)


@pytest.fixture(scope="module")
def reach() -> tuple[Task, Expert]:
    task = registry.task(REACH)
    return task, registry.suite("metaworld").expert(task)


@pytest.mark.filterwarnings("ignore:Constant.s. may be too high:UserWarning")
def test_the_expert_of_another_arm_reaches_with_this_one(reach: tuple[Task, Expert]) -> None:
    """Meta-World's scripted expert knows the Sawyer's hand; the arm's tool stands in for it."""
    task, expert = reach
    clock = Clock()
    environment = built(read_site(SHIPPED), task, clock)
    out = {"state": np.zeros(39, dtype=np.float32)}
    for start in range(3):
        environment.reset(start_id(Split.TEST, start), out)
        assert out["state"][:3].tolist() == pytest.approx(HOME, abs=2e-3)
        assert (out["state"][18:36] == out["state"][:18]).all()
        expert.reset(np.random.default_rng(0))
        success = False
        for _ in range(100):
            clock.now += PERIOD_S
            before = out["state"][:18].copy()
            _, _, success = environment.step(np.clip(expert.act(out), -1, 1), out)
            assert (out["state"][18:36] == before).all()
            if success:
                break
        assert success
        assert (environment.unsolved, environment.dropped) == (0, 0)


def test_the_tool_goes_where_it_is_sent_and_stays_in_the_workspace(reach: tuple[Task, Expert]) -> None:
    clock = Clock()
    environment = built(read_site(SHIPPED), reach[0], clock)
    out = {"state": np.zeros(39, dtype=np.float32)}
    environment.reset(start_id(Split.TEST, 0), out)
    for action in [(1, 0, 0, -1)] * 10 + [(0, 0, 0, -1)] * 40:
        clock.now += PERIOD_S
        environment.step(np.array(action, dtype=np.float32), out)
    assert out["state"][:3].tolist() == pytest.approx((0.1, 0.6, 0.2), abs=5e-3)
    assert environment.limited == 0
    for _ in range(80):
        clock.now += PERIOD_S
        environment.step(np.array((0, 0, -1, -1), dtype=np.float32), out)
    assert out["state"][2] == pytest.approx(0.05, abs=5e-3)
    assert environment.limited > 0


def test_a_tool_outside_the_workspace_is_not_moved_back_but_refused(reach: tuple[Task, Expert]) -> None:
    elsewhere = Workspace((0.2, 0.4, 0.05), (0.5, 1.0, 0.5))
    environment = built(dataclasses.replace(read_site(SHIPPED), workspace=elsewhere), reach[0], Clock())
    with pytest.raises(GuardError, match=r"the tool is at -?0\.000, 0\.600, 0\.200 m, outside the workspace"):
        environment.reset(start_id(Split.TEST, 0), {"state": np.zeros(39, dtype=np.float32)})


def flown(reach: tuple[Task, Expert], fault: Fault) -> tuple[JointEnvironment, list[GuardFlag], Guard]:
    """Thirty decisions under the guard, as the policy's loop has it, with one fault from decision 10 on."""
    task, expert = reach
    site = dataclasses.replace(read_site(SHIPPED), faults=(fault,))
    clock = Clock()
    environment = built(site, task, clock)
    guard = Guard(GuardConfig(action_size=4, hold=("zero", "zero", "zero", "last")))
    out = {"state": np.zeros(39, dtype=np.float32)}
    environment.reset(start_id(Split.TEST, 0), out)
    guard.arm(clock.now)
    expert.reset(np.random.default_rng(0))
    flags = []
    for _ in range(30):
        proposal = np.clip(expert.act(out), -1, 1).astype(np.float64)
        guarded = guard.check(
            out["state"],
            environment.observed_at,
            proposal,
            0.0,
            clock.now,
            clock.now,
            environment.breach,
        )
        flags.append(guarded.flags)
        clock.now += PERIOD_S
        environment.step(guarded.action, out)
        assert np.isfinite(out["state"]).all()
    return environment, flags, guard


@pytest.mark.filterwarnings("ignore:Constant.s. may be too high:UserWarning")
@pytest.mark.parametrize(
    ("fault", "dropped", "holds"),
    [
        (Fault("drop", at=10, ticks=2), 0, False),
        (Fault("drop", at=10, ticks=8), 0, True),
        (Fault("delay", at=10, ticks=8), 0, True),
        (Fault("reorder", at=10, ticks=1), 1, False),
        (Fault("nan", at=10, ticks=2, joint=3), 2, False),
        (Fault("nan", at=10, ticks=8, joint=3), 8, True),
        (Fault("jump", at=10, ticks=8, amount=1.0), 8, True),
    ],
)
def test_faults_are_dropped_or_held_and_recovered_from(
    reach: tuple[Task, Expert], fault: Fault, dropped: int, holds: bool
) -> None:
    environment, flags, guard = flown(reach, fault)
    assert environment.dropped == dropped
    assert any(flag & GuardFlag.STALE_OBSERVATION for flag in flags) == holds
    assert guard.state is GuardState.RUN
    assert ("STALE_OBSERVATION" in [change.cause for change in guard.transitions]) == holds


@pytest.mark.filterwarnings("ignore:Constant.s. may be too high:UserWarning")
def test_a_pressed_emergency_stop_latches_with_its_cause(reach: tuple[Task, Expert]) -> None:
    environment, flags, guard = flown(reach, Fault("stop", at=10, ticks=1))
    assert guard.state is GuardState.ESTOP
    assert guard.transitions[-1].cause == "STOP_REQUESTED"
    assert all(flag & GuardFlag.STOP_REQUESTED for flag in flags[10:]), "released, it stays"
    out = {"state": np.zeros(39, dtype=np.float32)}
    environment.reset(start_id(Split.TEST, 0), out)
    assert not environment.breach & GuardFlag.STOP_REQUESTED, "a new flight begins anew"


def test_a_frozen_arm_is_late_and_a_channel_carries_in_order() -> None:
    clock = Clock()
    channel = FaultyChannel((Fault("freeze", at=2, ticks=5), Fault("reorder", at=3)), PERIOD_S, clock.sleep)

    def measured(at: float) -> Measured:
        return Measured(at, np.zeros(1), np.zeros(1), np.zeros(1))

    assert [item.at for item in channel.carry(1, measured(1.0))] == [1.0]
    assert clock.now == 100.0
    channel.carry(2, measured(2.0))
    assert clock.now == pytest.approx(100.0 + 5 * PERIOD_S)
    assert channel.carry(3, measured(3.0)) == []
    assert [item.at for item in channel.carry(4, measured(4.0))] == [4.0, 3.0]


def test_tasks_that_the_arm_does_not_bind_are_refused() -> None:
    config = RobotConfig(name="arm")
    require_fit(SHIPPED, config, [registry.task(REACH), registry.task("point/obstacle")], "0" * 64)
    with pytest.raises(ConfigError, match="binds no task maze2d"):
        require_fit(SHIPPED, config, [registry.task("maze2d/umaze")], "0" * 64)


def test_a_whole_deployment_flies_the_arm_and_its_log_replays(tmp_path: Path) -> None:
    """The policy drives the hand towards the goal: entries 0 to 2 of the state, and the last three."""
    weights = np.zeros((39, 4), dtype=np.float32)
    for axis in range(3):
        weights[axis, axis], weights[36 + axis, axis] = -10, 10
    linear_artefact(tmp_path / "artefact", [registry.task(REACH)], weights, execute=1)
    patient = dict.fromkeys(("stale_limit_ms", "inference_deadline_ms", "command_timeout_ms"), 1000.0)
    patient["proposal_periods"] = 50.0
    config = RobotConfig(name="arm", fifo=False, settle_decisions=3, **patient)  # type: ignore[arg-type]
    starts = [start_id(Split.TEST, 0)]
    report = deploy(tmp_path / "artefact", config, [REACH], starts, 0, tmp_path)
    (episode,) = report.episodes
    assert episode.success
    assert (episode.final_state, episode.unsolved, episode.dropped) == ("RUN", 0, 0)
    flight = read_flight(Path(episode.log))
    assert replay(flight)[0].tobytes() == flight.command.tobytes()
    found = replay_joints(flight)
    assert (found.different, found.unavailable) == ((), "")
    assert found.positions > 0.9 * (episode.decisions - 1)
    row = int(np.flatnonzero(flight.column(Column.TICK) == 5)[0])
    flight.joints[row, 4 + 24] = np.nextafter(flight.joints[row, 4 + 24], 1)
    assert row in replay_joints(flight).different, "a changed position of a joint is found"
