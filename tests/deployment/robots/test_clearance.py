"""The arm does not meet itself: distances by hand, and random commands that would bring it there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import mujoco
import numpy as np
import pytest

from mtrl import registry
from mtrl.deployment import GuardConfig, GuardFlag, GuardState, RobotConfig
from mtrl.deployment.guard.guard import Guard
from mtrl.deployment.robots import arm
from mtrl.deployment.robots.clearance import distant_pairs
from mtrl.deployment.robots.fit import kinematics_of, require_fit
from mtrl.deployment.robots.joint_guard import JointGuard
from mtrl.deployment.robots.site import read_site
from mtrl.deployment.robots.terms import action_terms
from mtrl.errors import ConfigError

SHIPPED = Path(arm.__file__).parent / "arm.yaml"
SITE = dataclasses.replace(read_site(SHIPPED), clearance_mm=20.0)
NAMES = [joint.name for joint in SITE.joints]
HOME = np.array([0.5 * (joint.start_low + joint.start_high) for joint in SITE.joints])  # type: ignore[operator]


def apart(model: mujoco.MjModel, data: mujoco.MjData, one: int, other: int) -> float:
    """Of two capsules: least distance of 101 x 101 points of their axes, at most 1% too large, less radii."""
    ends = []
    for geom in (one, other):
        middle, axis = data.geom_xpos[geom], data.geom_xmat[geom].reshape(3, 3)[:, 2]
        steps = np.linspace(-1, 1, 101) * model.geom_size[geom, 1]
        ends.append(middle + steps[:, None] * axis)
    between = np.linalg.norm(ends[0][:, None] - ends[1][None], axis=2).min()
    return float(between - model.geom_size[one, 0] - model.geom_size[other, 0])


def test_the_least_distance_is_that_of_the_capsules_axes() -> None:
    kinematics = kinematics_of(SITE, SHIPPED)
    assert kinematics is not None
    model, draws = kinematics.model, np.random.default_rng(0)
    data = mujoco.MjData(model)
    assert len(kinematics.pairs) == 21
    low, high = (np.array([getattr(joint, end) for joint in SITE.joints]) for end in ("low", "high"))
    for _ in range(20):
        position = draws.uniform(low, high)
        data.qpos[:] = position
        mujoco.mj_kinematics(model, data)
        expected = min(apart(model, data, *pair) for pair in kinematics.pairs)
        assert kinematics.clearance(position) == pytest.approx(expected, abs=3e-3)


def test_neighbours_are_counted_by_joints_and_fixed_bodies_are_their_parents() -> None:
    """a-b-c-d in a chain, b2 fixed to b: of a joint apart and of two, neighbours; of three, not."""
    text = (
        '<mujoco><worldbody><body name="a"><joint/><geom type="sphere" size=".1"/><body name="b"><joint/>'
        '<body name="b2"><geom type="sphere" size=".1"/></body><geom type="box" size=".1 .1 .1"/>'
        '<body name="c"><joint/><geom type="sphere" size=".1"/><body name="d"><joint/>'
        '<geom type="sphere" size=".1"/></body></body></body></body></worldbody></mujoco>'
    )
    model = mujoco.MjModel.from_xml_string(text)
    named = {(model.geom(i).bodyid[0], model.geom(j).bodyid[0]) for i, j in distant_pairs(model)}
    assert {tuple(model.body(int(body)).name for body in pair) for pair in named} == {("a", "d")}


@pytest.mark.parametrize("clearance_mm", [0.0, 20.0])
def test_no_command_brings_the_arm_nearer_to_itself_than_allowed(clearance_mm: float) -> None:
    """3,000 decisions towards random positions; without the limit, many are nearer."""
    site = dataclasses.replace(SITE, clearance_mm=clearance_mm)
    terms = action_terms([f"shift.{name}" for name in NAMES], NAMES)
    kinematics, oracle = kinematics_of(site, SHIPPED), kinematics_of(site, SHIPPED)
    assert kinematics is not None and oracle is not None
    guard, draws = JointGuard(site, terms, 20.0, kinematics), np.random.default_rng(1)
    guard.begin(HOME)
    assert guard.too_near() is None
    low, high = guard.limits.low, guard.limits.high
    nearest, given_up, moved = 1.0, 0, 0
    goal = HOME
    for decision in range(3000):
        if decision % 30 == 0:
            goal = draws.uniform(low, high)
        before = guard.sent.copy()
        sent = guard.target(goal - before)
        nearest = min(nearest, oracle.clearance(sent))
        stays = bool(guard.flags & GuardFlag.SELF_COLLISION)
        assert not stays or (sent == before).all()
        given_up, moved = given_up + stays, moved + bool((sent != before).any())
    assert moved > 1000
    assert (nearest >= 0.02, given_up > 0) == ((True, True) if clearance_mm else (False, False))


def test_an_arm_that_is_too_near_may_move_apart() -> None:
    kinematics = kinematics_of(SITE, SHIPPED)
    terms = action_terms([f"shift.{name}" for name in NAMES], NAMES)
    guard, draws = JointGuard(SITE, terms, 20.0, kinematics), np.random.default_rng(0)
    assert kinematics is not None
    near = HOME
    while kinematics.clearance(near) >= 0.0:
        near = draws.uniform(guard.limits.low, guard.limits.high)
    guard.begin(near)
    assert guard.too_near() == kinematics.clearance(near)
    for _ in range(100):
        guard.target(HOME - guard.sent)
    closer = kinematics.clearance(near)
    assert kinematics.clearance(guard.sent) > closer


def test_what_would_meet_itself_again_and_again_is_an_emergency_stop() -> None:
    guard = Guard(GuardConfig(action_size=1, hold=("zero",), hold_budget=2))
    guard.arm(0.0)
    nothing = np.zeros(1)
    for tick in range(3):
        assert guard.state is not GuardState.ESTOP
        now = 0.01 * tick
        guard.check(nothing, now, nothing, 0.0, now, now, int(GuardFlag.SELF_COLLISION))
    assert guard.state is GuardState.ESTOP
    assert guard.transitions[-1].cause == "the arm would meet itself for more than 2 targets in a row"


def test_a_clearance_needs_a_model_of_capsules(tmp_path: Path) -> None:
    text = SHIPPED.read_text().replace("model: arm.xml", "model: arm.xml\nclearance_mm: 20")
    (tmp_path / "arm.yaml").write_text(text)
    bare = SHIPPED.with_name("arm.xml").read_text().replace('type="capsule"', 'type="cylinder"')
    (tmp_path / "arm.xml").write_text(bare)
    task = registry.task("metaworld/reach-v3")
    config = RobotConfig(name="arm", hold_last=("metaworld:3",))
    with pytest.raises(ConfigError, match="clearance_mm needs `model`"):
        require_fit(tmp_path / "arm.yaml", config, [task], "0" * 64)
