"""A whole deployment on a robot that speaks ROS 2: policy, guard, control loop, bridge, wire."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mtrl.deployment import RobotConfig, deploy, read_flight, replay
from mtrl.deployment.robots.ros2.robot import check
from mtrl.errors import ConfigError, GuardError, UnknownNameError

from ..bench_suite import BenchSuite
from ..graphs import STEER, linear_artefact
from .peer import DOMAIN, Peer, messages

SITE = f"""
joints:
  - {{name: x, unit: mm, low: -1500, high: 1500, velocity: 5000}}
  - {{name: y, unit: m, low: -1.5, high: 1.5, velocity: 5}}
topics: {{command: table/commands, kind: trajectory, state: arm/joint_states, perception: scene,
  perception_size: 2}}
network: {{domain: {DOMAIN}}}
tasks:
  bench/point:
    observation: [position.x, position.y, "perception.0:2"]
    action: [0.02 * shift.x, 0.02 * shift.y]
    success: {{of: [0, 1], to: [2, 3], within: 0.05}}
"""
GOAL = [0.4, -0.3]
PATIENT = {
    "stale_limit_ms": 1000.0,
    "inference_deadline_ms": 1000.0,
    "command_timeout_ms": 1000.0,
    "proposal_periods": 50.0,
}


class Table(threading.Thread):
    """A robot of two rails that is at once where a trajectory's point is; it says so at 100 Hz."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.position = {"x": 0.0, "y": 0.0}
        self.points: list[tuple[list[str], list[float], int]] = []
        self.ended = threading.Event()

    def run(self) -> None:
        peer = Peer(messages.Trajectory, "table/commands")
        while not self.ended.is_set():
            for command in peer.commands():
                (point,) = command.points
                self.points.append((command.joint_names, point.positions, point.time_from_start.nanosec))
                self.position.update(zip(command.joint_names, point.positions, strict=True))
            peer.state(["y", "x"], [self.position["y"], self.position["x"]])
            peer.scene.write(messages.FloatArray(data=GOAL))
            time.sleep(0.01)


@pytest.fixture
def table() -> Iterator[Table]:
    found = Table()
    found.start()
    yield found
    found.ended.set()
    found.join()


def test_a_policy_flies_a_robot_over_the_wire_and_its_log_replays(
    bench: BenchSuite, table: Table, tmp_path: Path
) -> None:
    (tmp_path / "robot.yaml").write_text(SITE)
    tasks = [bench.task("bench/point", {"horizon": 250})]
    root = linear_artefact(tmp_path / "artefact", tasks, STEER, execute=1)
    config = RobotConfig(
        name="ros2",
        file=str(tmp_path / "robot.yaml"),
        hold_last=(),
        fifo=False,
        settle_decisions=3,
        **PATIENT,
    )  # type: ignore[arg-type]
    flown = (tmp_path / "artefact", config, ["bench/point"], [2], 0, tmp_path)
    with pytest.raises(ConfigError, match="pass mtrl deploy --arm"):
        deploy(*flown)
    with pytest.raises(GuardError, match=f"write there: artefact: {root[:12]}"):
        deploy(*flown, mode="armed")
    assert table.points == []
    (tmp_path / "robot.yaml").write_text(f"artefact: {root[:12]}\n{SITE}")
    (episode,) = deploy(*flown, mode="armed").episodes
    assert episode.success
    assert (episode.final_state, episode.dropped, episode.command_timeouts) == ("RUN", 0, 0)
    flight = read_flight(Path(episode.log))
    assert replay(flight)[0].tobytes() == flight.command.tobytes()
    assert table.position == pytest.approx({"x": 400.0, "y": -0.3}, abs=50)
    names, _, nanoseconds = table.points[-1]
    assert (names, nanoseconds) == (["x", "y"], 20_000_000)


@pytest.mark.parametrize("mode", ["shadow", "dry-run"])
def test_a_robot_that_is_only_watched_hears_nothing(
    bench: BenchSuite, table: Table, tmp_path: Path, mode: str
) -> None:
    """Somebody else may command it meanwhile: there is no second publisher of its commands."""
    (tmp_path / "robot.yaml").write_text(SITE)
    linear_artefact(tmp_path / "artefact", [bench.task("bench/point", {"horizon": 30})], STEER, execute=1)
    config = RobotConfig(name="ros2", file=str(tmp_path / "robot.yaml"), hold_last=(), fifo=False, **PATIENT)  # type: ignore[arg-type]
    (episode,) = deploy(tmp_path / "artefact", config, ["bench/point"], [2], 0, tmp_path, mode=mode).episodes
    assert (episode.mode, episode.decisions) == (mode, 30)
    flight = read_flight(Path(episode.log))
    assert np.abs(flight.proposal).max() > 0.5
    assert flight.mode == mode
    # nobody moves the table, and the policy would have
    assert (episode.shadow is not None and episode.shadow.mismatches > 20) == (mode == "shadow")
    assert table.points == []
    assert table.position == {"x": 0.0, "y": 0.0}


def test_what_the_files_show_is_refused_before_any_process_starts(bench: BenchSuite, tmp_path: Path) -> None:
    linear_artefact(tmp_path / "artefact", [bench.task("bench/point")], STEER)
    with pytest.raises(ConfigError, match=r"robot=ros2 needs robot\.file"):
        deploy(
            tmp_path / "artefact", RobotConfig(name="ros2"), ["bench/point"], [2], 0, tmp_path, mode="armed"
        )
    assert not (tmp_path / "deployments").exists()
    path = tmp_path / "robot.yaml"
    path.write_text(SITE.replace("network: {", "network: {interface: eth77, "))
    with pytest.raises(UnknownNameError, match="unknown network interface 'eth77'"):
        check(RobotConfig(name="ros2", file=str(path), hold_last=()), [bench.task("bench/point")], "0" * 64)
