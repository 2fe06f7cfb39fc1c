"""A policy plays tasks that it was not trained on as those of its own with the same sizes, or is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mtrl import registry
from mtrl.errors import ConfigError, UnknownNameError
from mtrl.rollout import Acting, Action, PolicySnapshot, held_out, policy_from

OWN = ["gym/Acrobot-v1", "gym/CartPole-v1"]
SNAPSHOT = PolicySnapshot("tell", version=7)


class Tell:
    """Tells by its action which task it was asked about, and keeps what it saw."""

    extras = ()
    seen: np.ndarray

    def initial_state(self, count: int) -> dict[str, Any]:
        return {}

    def act(self, observation: Any, task_index: Any, state: Any, ended: Any, **_: Any) -> Action:
        self.seen = observation["state"]
        return Action(np.zeros((len(task_index), 0), np.float32), task_index, state=state)


@pytest.fixture
def tell() -> Iterator[Tell]:
    policy = Tell()
    registry.register("policy", "tell", lambda snapshot, tasks: policy)
    yield policy
    registry.unregister("policy", "tell")


def test_a_task_is_played_as_the_own_one_of_its_sizes(tell: Tell) -> None:
    own, tasks = registry.task_set(OWN), registry.task_set(["gym/CartPole-v0"])
    policy = policy_from(held_out(SNAPSHOT, own, (OWN, {}), tasks), tasks)
    observation = {"state": np.array([[1, 2, 3, 4]], np.float32)}
    found = policy.act(
        observation,
        np.zeros(1, np.int64),
        policy.initial_state(1),
        np.ones(1, np.bool_),
        acting=Acting(),
        generators=[],
    )
    assert found.discrete.tolist() == [1], "it is asked as for CartPole-v1"
    # padded to the six numbers of Acrobot's state
    assert tell.seen.tolist() == [[1, 2, 3, 4, 0, 0]] and policy.version == 7


@pytest.mark.parametrize(
    ("own", "task", "played_as", "said"),
    [
        (
            ["gym/CartPole-v1"],
            "gym/Acrobot-v1",
            "",
            "a state of 6, 3 choices, and gym/CartPole-v1 has",
        ),
        (["gym/CartPole-v1"], "gym/CartPole-v1", "", "was trained on gym/CartPole-v1, so it is"),
        (
            ["metaworld/reach-v3", "metaworld/push-v3"],
            "metaworld/pick-place-v3",
            "",
            "choose as which of them it is played with --as TASK, such as --as metaworld/reach-v3",
        ),
        (OWN, "gym/CartPole-v0", "gym/Acrobot-v1", "and gym/Acrobot-v1 has a state of 6"),
    ],
)
def test_what_does_not_fit_is_refused(own: list[str], task: str, played_as: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        held_out(SNAPSHOT, registry.task_set(own), (own, {}), registry.task_set([task]), played_as)
    assert said in str(raised.value)


def test_a_chosen_task_decides_between_several(tell: Tell) -> None:
    own = ["metaworld/reach-v3", "metaworld/push-v3"]
    tasks = registry.task_set(["metaworld/pick-place-v3"])
    found = held_out(SNAPSHOT, registry.task_set(own), (own, {}), tasks, "metaworld/push-v3")
    assert found.config["rows"] == [1]
    with pytest.raises(UnknownNameError, match="metaworld/push-v3"):
        held_out(SNAPSHOT, registry.task_set(own), (own, {}), tasks, "metaworld/puch-v3")
