"""Inverse kinematics, judged by MuJoCo's forward kinematics in a model and data of the test's own."""

from __future__ import annotations

from pathlib import Path

import metaworld
import mujoco
import numpy as np
import numpy.typing as npt
import pytest

from mtrl.deployment.robots.arm.robot import SHIPPED
from mtrl.deployment.robots.fit import kinematics_of
from mtrl.deployment.robots.joint_guard import Limits
from mtrl.deployment.robots.kinematics import Kinematics
from mtrl.deployment.robots.site import read_site
from mtrl.errors import ConfigError, IntegrityError

Float64 = npt.NDArray[np.float64]
SITE = read_site(SHIPPED)
NAMES = [joint.name for joint in SITE.joints]
LIMITS = Limits(SITE)
MIDDLE = (LIMITS.start_low + LIMITS.start_high) / 2
DOWN = np.diag([1.0, -1.0, -1.0])


@pytest.fixture(scope="module")
def arm() -> Kinematics:
    found = kinematics_of(SITE, SHIPPED)
    assert found is not None
    return found


class Oracle:
    """MuJoCo's own answer to where the tool is."""

    def __init__(self, path: Path, names: list[str], tool: str = "tool") -> None:
        self.site = tool
        self.model = mujoco.MjModel.from_xml_path(str(path))
        self.data = mujoco.MjData(self.model)
        self.names = names

    def tool(self, position: Float64) -> tuple[Float64, Float64]:
        for name, value in zip(self.names, position, strict=True):
            self.data.joint(name).qpos[0] = value
        mujoco.mj_forward(self.model, self.data)
        tool = self.data.site(self.site)
        return tool.xpos.copy(), tool.xmat.reshape(3, 3).copy()


ORACLE = Oracle(SHIPPED.with_name("arm.xml"), NAMES)


def test_200_reachable_places_are_reached_within_limits(arm: Kinematics) -> None:
    generator = np.random.default_rng(7)
    for _ in range(200):
        target = ORACLE.tool(generator.uniform(LIMITS.low, LIMITS.high))[0]
        solution = arm.solve(MIDDLE, target, iterations=100)
        reached = ORACLE.tool(solution.position)[0]
        assert np.linalg.norm(reached - target) < 1e-5, f"{target}: {solution}"
        assert solution.solved(1e-5)
        assert solution.residual_m == pytest.approx(np.linalg.norm(reached - target), abs=1e-12)
        assert ((solution.position >= LIMITS.low) & (solution.position <= LIMITS.high)).all()
        assert solution.position[-1] == MIDDLE[-1], "the gripper does not move the tool"


def test_the_arm_of_another_model_reaches_too() -> None:
    """Meta-World's Sawyer: seven joints with meshes, among bodies that are no part of it."""
    path = Path(metaworld.__file__).parent / "assets" / "sawyer_xyz" / "sawyer_reach_v3.xml"
    names = [f"right_j{index}" for index in range(7)]
    oracle = Oracle(path, names, "endEffector")
    low, high = np.array([oracle.model.joint(name).range for name in names]).T
    sawyer = Kinematics(path, "endEffector", names, low, high)
    generator = np.random.default_rng(9)
    solved = 0
    for _ in range(200):
        target = oracle.tool(generator.uniform(low, high))[0]
        solution = sawyer.solve((low + high) / 2, target, iterations=100)
        missed = np.linalg.norm(oracle.tool(solution.position)[0] - target)
        assert solution.solved(1e-3) == (missed <= 1e-3), "a place that is not reached is flagged"
        solved += bool(missed <= 1e-3)
    # from the middle of the joints one of them is behind a limit that steps towards it do not get round
    assert solved >= 198


def test_places_of_the_workspace_are_reached_with_the_tool_pointing_down(arm: Kinematics) -> None:
    generator = np.random.default_rng(8)
    for _ in range(50):
        target = generator.uniform([-0.3, 0.4, 0.05], [0.3, 0.9, 0.4])
        solution = arm.solve(MIDDLE, target, DOWN, iterations=100)
        place, rotation = ORACLE.tool(solution.position)
        assert np.linalg.norm(place - target) < 1e-5
        assert np.abs(rotation - DOWN).max() < 1e-4


@pytest.mark.parametrize("target", [[0.0, 3.0, 0.0], [0.0, 0.0, 5.0], [1.5, 0.0, 0.3]])
def test_a_place_out_of_reach_is_flagged_with_how_far_it_is_missed(
    arm: Kinematics, target: list[float]
) -> None:
    solution = arm.solve(MIDDLE, np.array(target), iterations=100)
    missed = np.linalg.norm(ORACLE.tool(solution.position)[0] - target)
    assert not solution.solved(0.1)
    assert solution.residual_m == pytest.approx(missed)
    # the arm is stretched out towards it: from the shoulder, 0.3 m up, it is 1.23 m long
    assert missed < np.linalg.norm(np.array(target) - [0, 0, 0.3]) - 1.23 + 0.05


def test_a_place_in_reach_with_an_orientation_out_of_reach_is_flagged(arm: Kinematics) -> None:
    far = np.array([0.0, 1.15, 0.3])
    assert arm.solve(MIDDLE, far, iterations=200).solved(1e-3)
    assert not arm.solve(MIDDLE, far, DOWN, iterations=200).solved(1e-3)


def test_a_model_that_is_none_and_a_tool_that_it_lacks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    path.write_text("<mujoco><worldbody><body name=")
    with pytest.raises(IntegrityError, match=r"model\.xml is not an MJCF model"):
        Kinematics(path, "tool", NAMES, LIMITS.low, LIMITS.high)
    with pytest.raises(ConfigError, match="has no site 'hand' for the tool; it has tool"):
        Kinematics(SHIPPED.with_name("arm.xml"), "hand", NAMES, LIMITS.low, LIMITS.high)
