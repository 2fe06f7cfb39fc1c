"""Meta-World with action repeat: the same physics, mean rewards, a protocol of its own."""

from __future__ import annotations

import numpy as np
import pytest

from mtrl import registry
from mtrl.errors import OutOfRangeError
from mtrl.tasks import Environment, Task


def built(**options: int) -> tuple[Task, Environment]:
    task = registry.task("metaworld/drawer-close-v3", dict(options))
    return task, registry.suite("metaworld").environment(task)


def test_a_held_action_is_that_action_repeated() -> None:
    (_, plain), (_, held) = built(), built(action_repeat=3)
    first, second = ({"state": np.zeros(39, np.float32)} for _ in range(2))
    generator = np.random.default_rng(0)
    plain.reset(7, first)
    held.reset(7, second)
    for _ in range(15):
        action = generator.uniform(-1, 1, 4).astype(np.float32)
        steps = [plain.step(action, first) for _ in range(3)]
        reward, terminated, success = held.step(action, second)
        np.testing.assert_array_equal(first["state"], second["state"])
        assert reward == pytest.approx(np.mean([step[0] for step in steps]))
        assert success == any(step[2] for step in steps)
        assert not terminated
    plain.close()
    held.close()


def test_repeat_is_a_protocol_of_its_own_and_none_is_the_official_one() -> None:
    official, repeated = (registry.task("metaworld/reach-v3", {"action_repeat": n}) for n in (1, 2))
    assert official == registry.task("metaworld/reach-v3")
    assert official.protocol_hash != repeated.protocol_hash
    assert repeated.rate_hz == 40.0
    assert repeated.horizon_decisions == 250, "the same 500 control steps"
    again = registry.task(repeated.name, dict(repeated.options))
    assert again == repeated


def test_an_episode_that_the_simulator_refuses_is_refused() -> None:
    with pytest.raises(OutOfRangeError, match="1 to 250 decisions of 2 control steps"):
        registry.task("metaworld/reach-v3", {"action_repeat": 2, "horizon": 300})


def test_no_vector_backend_repeats() -> None:
    suite = registry.suite("metaworld")
    assert suite.vector_backends(registry.task("metaworld/reach-v3", {"action_repeat": 2})) == ()  # type: ignore[attr-defined]
