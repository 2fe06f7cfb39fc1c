"""EnvPool behind the contract of a vector environment, for the three suites that have it."""

import sys
from typing import Any

import numpy as np
import pytest

from mtrl import registry
from mtrl.envs.atari import SUITE as ATARI
from mtrl.envs.atari.pool import OTHER_SCREENS, atari_identifier
from mtrl.envs.dmc import SUITE as DMC
from mtrl.envs.dmc.pool import control_identifier
from mtrl.envs.dmc.suite import OTHER_PROBLEMS
from mtrl.envs.metaworld import SUITE as METAWORLD
from mtrl.envs.metaworld.pool import metaworld_identifier
from mtrl.errors import MissingExtraError, UnsupportedError
from mtrl.rollout import require_backends
from mtrl.tasks import VectorSuite
from mtrl.tasks import threads as budget

from .pools import Batch, require_envpool, smooth_actions

TASKS = {
    "metaworld/reach-v3": (METAWORLD, {}),
    "dmc/walker-walk": (DMC, {"action_repeat": 2}),
    "atari/Boxing": (ATARI, {"observation": "both"}),
}


def batch(name: str, copies: int = 4, seed: int = 0, **options: Any) -> Batch:
    suite, usual = TASKS.get(name, (None, {}))
    if suite is None:
        suite = {"metaworld": METAWORLD, "dmc": DMC, "atari": ATARI}[name.split("/")[0]]
    task = suite.task(name, {**usual, **options})
    return Batch(task, copies, suite.vector_environment(task, copies, "envpool", seed))


def action_of(name: str, step: int) -> np.ndarray:
    suite, options = TASKS[name]
    spec = suite.task(name, options).action
    if spec.is_discrete:
        return np.array((3 * step) % spec.discrete)
    return smooth_actions(spec.continuous, step + 1)[step]


@pytest.mark.parametrize("suite", [METAWORLD, DMC, ATARI], ids=lambda suite: suite.name)
def test_backends_are_told_without_a_simulator_and_without_envpool(suite: Any) -> None:
    assert isinstance(suite, VectorSuite)
    names = [name for name in suite.names() if "envpool" in suite.vector_backends(suite.task(name))]
    missing = {name.split("/")[1] for name in set(suite.names()) - set(names)}
    roms = {suite.entry(f"atari/{name}").rom for name in missing} if suite is ATARI else set()
    assert missing == {METAWORLD: set(), DMC: OTHER_PROBLEMS, ATARI: missing}[suite]
    assert roms == (OTHER_SCREENS if suite is ATARI else set())


def test_what_envpool_cannot_show_is_refused() -> None:
    old = METAWORLD.task("metaworld/reach-v3", {"reward_version": "v1"})
    seen = DMC.task("dmc/cheetah-run", {"observation": "pixels"})
    other = DMC.task("dmc/quadruped-escape")
    tall = ATARI.task("atari/KingKong")
    for suite, task in ((METAWORLD, old), (DMC, seen), (DMC, other), (ATARI, tall)):
        assert "envpool" not in suite.vector_backends(task)
        with pytest.raises(UnsupportedError, match="no vector backend 'envpool'"):
            suite.vector_environment(task, 2, "envpool", 0)
    assert "envpool" in ATARI.vector_backends(ATARI.task("atari/KingKong", {"observation": "ram"}))


@pytest.mark.parametrize("name", TASKS)
def test_without_envpool_the_error_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(MissingExtraError, match=rf"{name} needs .*'envpool'.*mtrl-platform\[envpool\]"):
        batch(name)
    # and before anything is built
    tasks = registry.task_set([name])
    with pytest.raises(
        MissingExtraError, match=r"runtime\.backends\.\w+=envpool needs .*mtrl-platform\[envpool\]"
    ):
        require_backends(tasks, {tasks[0].suite: "envpool"})


def test_envpool_has_every_task_under_the_name_we_ask_for() -> None:
    require_envpool()
    import envpool

    known = set(envpool.list_all_envs())
    for name in METAWORLD.names():
        assert metaworld_identifier(name.split("/")[1]) in known
    for name in DMC.names():
        entry = DMC.entry(name)
        assert control_identifier(entry.domain, entry.task) in known
    for name in ATARI.names():
        assert atari_identifier(ATARI.entry(name).rom) in known


@pytest.mark.parametrize("name", TASKS)
def test_a_reset_touches_the_copies_it_names_and_no_other(name: str) -> None:
    """The others' rows and episodes are those of a pool in which nobody was reset."""
    require_envpool()
    some, none = batch(name), batch(name)
    some.reset()
    none.reset()
    for step in range(12):
        some.step(action_of(name, step))
        none.step(action_of(name, step))
    before = {bucket: rows.copy() for bucket, rows in some.out.items()}
    some.reset(3, 1)
    for bucket, rows in some.out.items():
        np.testing.assert_array_equal(rows[[0, 2]], before[bucket][[0, 2]])
        assert (rows[1] != before[bucket][1]).any()
        assert (rows[3] != before[bucket][3]).any()
    for step in range(12, 24):
        some.step(action_of(name, step))
        none.step(action_of(name, step))
        for bucket in some.out:
            np.testing.assert_array_equal(some.out[bucket][[0, 2]], none.out[bucket][[0, 2]])
        np.testing.assert_array_equal(some.reward[[0, 2]], none.reward[[0, 2]])


@pytest.mark.parametrize("name", TASKS)
def test_a_copy_is_given_its_own_action(name: str) -> None:
    """Four copies with four actions are four pools of one copy, each with its action."""
    require_envpool()
    together = batch(name)
    spec = together.task.action
    together.reset()
    generator = np.random.default_rng(0)
    if spec.is_discrete:
        actions = generator.integers(0, spec.discrete, (15, 4))
    else:
        actions = generator.uniform(-1.0, 1.0, (15, 4, spec.continuous)).astype(np.float32)
    seen = []
    for action in actions:
        together.step(action)
        seen.append({bucket: rows.copy() for bucket, rows in together.out.items()})
    same = batch(name)
    same.reset()
    mixed = actions.copy()
    mixed[:, 0] = mixed[:, 1]
    for action, rows in zip(mixed, seen, strict=True):
        same.step(action)
        for bucket in rows:
            np.testing.assert_array_equal(same.out[bucket][1:], rows[bucket][1:])
    assert any((same.out[bucket][0] != seen[-1][bucket][0]).any() for bucket in seen[-1])


@pytest.mark.parametrize("name", ["metaworld/reach-v3", "dmc/walker-walk"])
def test_the_seed_decides_everything_and_neighbours_share_nothing(name: str) -> None:
    require_envpool()
    pools = [batch(name, seed=seed) for seed in (5, 5, 6)]
    for pool in pools:
        pool.reset()
        for step in range(5):
            pool.step(action_of(name, step))
    bucket = next(iter(pools[0].out))
    np.testing.assert_array_equal(pools[0].out[bucket], pools[1].out[bucket])
    # EnvPool's own rule, seed + copy, would give copy 1 of seed 5 and copy 0 of seed 6 the same episodes
    rows = np.concatenate([pools[0].out[bucket], pools[2].out[bucket]])
    assert len(np.unique(rows, axis=0)) == 8


@pytest.mark.parametrize("name", TASKS)
def test_threads_change_the_speed_and_no_number(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require_envpool()
    shown = []
    for threads in (1, 3):
        monkeypatch.setattr(budget, "_limit", [threads])
        played = batch(name, copies=4, seed=5)
        played.reset()
        rows = [{key: values.copy() for key, values in played.out.items()}]
        for step in range(25):
            if step == 10:
                played.reset(1, 3)
            played.step(action_of(name, step))
            rows.append({**{k: v.copy() for k, v in played.out.items()}, "reward": played.reward.copy()})
        played.environment.close()
        shown.append(rows)
    for one, other in zip(*shown, strict=True):
        for key, values in one.items():
            np.testing.assert_array_equal(values, other[key])


def test_buffers_are_written_in_place_and_the_rest_of_the_arrays_is_left_alone() -> None:
    require_envpool()
    pool = batch("dmc/walker-walk")
    wide = np.full((4, 40), 7.0, dtype=np.float32)
    pool.out["state"] = wide[:, :24]
    pool.reset()
    pool.step(action_of("dmc/walker-walk", 0))
    assert np.isfinite(wide).all() and (wide[:, 24:] == 7.0).all() and (wide[:, :24] != 7.0).any()
    assert pool.reward.dtype == np.float32 and not pool.terminated.any() and not pool.success.any()


def test_a_pool_can_be_closed_twice() -> None:
    require_envpool()
    pool = batch("metaworld/reach-v3", copies=1)
    pool.environment.close()
    pool.environment.close()
