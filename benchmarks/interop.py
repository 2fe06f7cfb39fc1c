"""The bridge against a real ROS 2 node: rclpy and Fast DDS in a virtual environment of their own.

    make interop JSON=interop.json          makes the environment, then runs this

A node publishes joint states at 500 Hz, the control loop behind the bridge commands the positions that it
read, and the node measures the round trip and compares every number, bit for bit. Then with trajectories:

rtt_us_p50, rtt_us_p99   round trip over node, wire, bridge, shared memory, loop and back, in microseconds
lost                     share of messages that were sent and did not arrive, both ways
superseded               share of joint states that the loop did not see: a newer one was there already
rate_hz                  joint states a second that the node came to
malformed                packets of the run with trajectories that tshark cannot read, of so many `packets`
rosbags_disagrees        messages, of the wire and of a flight log, that rosbags reads or writes otherwise

Fails when a number is not exact, when more than LOST of the messages are lost, when the node does not know
the type of what we publish, and when tshark or rosbags disagree; time is reported, never asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ros2.wire_checks import captured, rosbags_disagrees
from side_by_side import publish

from mtrl.deployment.realtime.roles import ROBOT
from mtrl.deployment.realtime.ticker import realtime_section
from mtrl.deployment.robots.ros2.link import BridgedRobot
from mtrl.deployment.robots.site import Network

NODE = Path(__file__).parent / "ros2" / "ros_node.py"
MESSAGES, SHORT, RATE_HZ = 2500, 250, 500.0
LOST = 0.001
BARS = {"rtt_us_p99": "<= 5000", "lost": f"<= {LOST}", "malformed": "0", "rosbags_disagrees": "0"}
LOOP_S = 0.0002
TYPES = {"array": "std_msgs/msg/Float64MultiArray", "trajectory": "trajectory_msgs/msg/JointTrajectory"}
SCENE = [1 / 3, 2 / 3, 1e300]
SITE = """
joints:
  - {name: elbow, low: -1, high: 1, velocity: 10}
  - {name: wrist, low: -1, high: 1, velocity: 10}
tasks: {}
topics: {command: commands, kind: KIND, perception: scene, perception_size: 3}
network: {domain: DOMAIN}
"""


def expected(counter: int) -> np.ndarray:
    """Position, velocity and effort that ros_node.py publishes for a counter."""
    k = counter
    return np.array([k / 7000, -k / 9000, k / 3, 1 / (k + 3), k / 11, -k / 13])


def fly(python: Path, kind: str, messages: int, domain: int) -> dict:
    """One run against a node; returns its figures."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "robot.yaml"
        path.write_text(SITE.replace("KIND", kind).replace("DOMAIN", str(domain)))
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": place,
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp",
        }
        robot = BridgedRobot(path, 1 / RATE_HZ, fifo=True)
        node = subprocess.Popen(
            [str(python), str(NODE), kind, str(messages), str(RATE_HZ)],
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        try:
            robot.begin(0)
            with realtime_section(ROBOT.priority):
                seen, before, wrong = answer(robot, node)
            said = json.loads(node.communicate(timeout=60)[0])
        finally:
            node.kill()
            robot.close()
    believed, sent = robot.believed - before[0], robot.sent - before[1]
    if said["wrong"] or wrong or robot.dropped:
        raise SystemExit(f"not exact: {said['wrong'] or wrong}; {robot.dropped} messages were refused")
    if said["kinds"] != [TYPES[kind]]:
        raise SystemExit(f"the node takes our commands for {said['kinds']}; expected {TYPES[kind]}")
    lost = (messages - believed) + (sent - len(said["trips"]))
    return {
        "trips": np.array(said["trips"]) * 1e6,
        "lost": lost / (messages + sent),
        "superseded": 1 - len(seen) / messages,
        "rate_hz": said["rate_hz"],
    }


def answer(robot: BridgedRobot, node: subprocess.Popen) -> tuple[set[int], tuple[int, int], list[str]]:
    """The control loop: commands each new position until the node ends.

    Returns the counters that it saw, joint states and commands before the first, and what was not exact.
    """
    seen: set[int] = set()
    wrong: list[str] = []
    before, last = (robot.believed, robot.sent), -1
    while node.poll() is None:
        robot.read()
        reading = robot.reading
        counter = round(reading.position[0] * 7000)
        if counter == 0:
            before = (robot.believed, robot.sent)
        if counter != last:
            last = counter
            robot.command(reading.position)
            if counter:
                seen.add(counter)
            found = reading.values[:6].reshape(3, 2).ravel()
            if (found != expected(counter)).any() or reading.perception.tolist() != SCENE:
                wrong.append(f"{reading.values.tolist()} for {counter}")
        time.sleep(LOOP_S)
    robot.read()
    return seen, before, wrong[:5]


def main() -> None:
    """Runs both kinds of command and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ros", type=Path, required=True, help="the interpreter that has rclpy")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    domain = Network(domain=1 + os.getpid() % 100).domain
    arrays = fly(arguments.ros, "array", MESSAGES, domain)
    disagreeing = rosbags_disagrees(arguments.ros)
    with captured(domain % 100 + 1) as packets:
        trajectories = fly(arguments.ros, "trajectory", SHORT, domain % 100 + 1)
    figures: dict[str, float | str] = {
        "rtt_us_p50": float(np.percentile(arrays["trips"], 50)),
        "rtt_us_p99": float(np.percentile(arrays["trips"], 99)),
        "lost": arrays["lost"],
        "superseded": arrays["superseded"],
        "rate_hz": arrays["rate_hz"],
        "trajectories_rtt_us_p50": float(np.percentile(trajectories["trips"], 50)),
        "trajectories_lost": trajectories["lost"],
        "packets": float(packets.rtps),
        "malformed": packets.malformed,
        "rosbags_disagrees": float(disagreeing),
    }
    details = {"messages": MESSAGES, "trajectories": SHORT, "asked_rate_hz": RATE_HZ}
    publish("ROS 2 Jazzy, rclpy and Fast DDS", figures, BARS, details, arguments.json)
    if max(arrays["lost"], trajectories["lost"]) > LOST:
        sys.exit(f"more than {100 * LOST:g}% of the messages were lost")
    if disagreeing or (isinstance(packets.malformed, float) and packets.malformed):
        sys.exit("tshark or rosbags do not read our bytes as we do")


if __name__ == "__main__":
    main()
