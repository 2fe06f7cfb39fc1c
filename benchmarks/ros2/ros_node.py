"""A robot as a ROS 2 node, run by the interpreter that has rclpy; `interop.py` starts it.

    python ros_node.py KIND MESSAGES RATE

Publishes joint states whose numbers follow from a counter, takes commands of KIND ("array" or "trajectory")
that repeat the positions, and prints one JSON object: what came back, whether it was exact, how long it took.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

NAMES = ["elbow", "wrist"]
DEPTH = 200
WARM_UP_S, PATIENCE_S = 30.0, 3.0


def values(counter: int) -> tuple[list[float], list[float], list[float]]:
    """Position, velocity and effort of both joints: doubles with all their bits in use."""
    return [counter / 7000, -counter / 9000], [counter / 3, 1 / (counter + 3)], [counter / 11, -counter / 13]


def counter_of(position: list[float]) -> int:
    """The counter behind positions."""
    return round(position[0] * 7000)


class Robot:
    """The node with what it sent and got."""

    def __init__(self, kind: str) -> None:
        self.node = rclpy.create_node("robot")
        qos = QoSProfile(depth=DEPTH)
        self.states = self.node.create_publisher(JointState, "joint_states", qos)
        self.scene = self.node.create_publisher(Float64MultiArray, "scene", qos)
        self.kind = kind
        taken = {"array": Float64MultiArray, "trajectory": JointTrajectory}[kind]
        self.node.create_subscription(taken, "commands", self.take, qos)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.sent: dict[int, float] = {}
        self.back: dict[int, float] = {}
        self.wrong: list[str] = []

    def take(self, message: object) -> None:
        """One command; the first with a counter ends its round trip."""
        now = time.perf_counter()
        if self.kind == "array":
            position = list(message.data)
        else:
            if len(message.points) != 1 or list(message.joint_names) != NAMES:
                self.wrong.append(str(message))
                return
            position = list(message.points[0].positions)
        counter = counter_of(position)
        if position != values(counter)[0]:
            self.wrong.append(f"{position} for {counter}")
        self.back.setdefault(counter, now)

    def publish(self, counter: int) -> None:
        """One joint state, in the other order than the robot's file has."""
        message = JointState()
        message.header.stamp = self.node.get_clock().now().to_msg()
        message.name = NAMES[::-1]
        message.position, message.velocity, message.effort = (part[::-1] for part in values(counter))
        self.sent[counter] = time.perf_counter()
        self.states.publish(message)

    def spin_until(self, deadline: float) -> None:
        """Takes commands until then, one look at the least."""
        self.executor.spin_once(timeout_sec=0)
        while (left := deadline - time.perf_counter()) > 0:
            self.executor.spin_once(timeout_sec=left)


def main() -> None:
    """Warms up until commands come, then sends at the rate, then waits for the last answers."""
    kind, messages, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    rclpy.init()
    with contextlib.suppress(OSError):  # real time where the system grants it, as the bridge asks for
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(20))
    robot = Robot(kind)
    begun = time.perf_counter()
    while 0 not in robot.back and time.perf_counter() < begun + WARM_UP_S:
        robot.publish(0)
        robot.scene.publish(Float64MultiArray(data=[1 / 3, 2 / 3, 1e300]))
        robot.spin_until(time.perf_counter() + 0.05)
    robot.spin_until(time.perf_counter() + 0.5)
    kinds = [info.topic_type for info in robot.node.get_publishers_info_by_topic("/commands")]
    begun = due = time.perf_counter()
    for counter in range(1, messages + 1):
        # what a busy machine delays is not made up for in a burst
        due = max(due + 1 / rate, time.perf_counter())
        robot.spin_until(due)
        robot.publish(counter)
    seconds = time.perf_counter() - begun
    deadline = time.perf_counter() + PATIENCE_S
    while messages not in robot.back and time.perf_counter() < deadline:
        robot.spin_until(time.perf_counter() + 0.05)
    robot.spin_until(time.perf_counter() + 0.3)
    trips = sorted(robot.back[counter] - robot.sent[counter] for counter in robot.back if counter > 0)
    said = {"kinds": kinds, "wrong": robot.wrong[:5], "trips": trips, "rate_hz": messages / seconds}
    print(json.dumps(said))


main()
