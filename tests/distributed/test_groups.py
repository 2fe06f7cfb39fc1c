"""GRPO's groups on Ray actors, one of which is killed in the middle of a round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtrl import registry
from mtrl.agents.grpo import GRPOAgent
from mtrl.distributed import rollouts_for
from mtrl.reducer import ALONE
from mtrl.rollout import EpisodeGroup, LocalRollouts, PoolRollouts, RuntimeConfig
from mtrl.tasks import TaskSet
from mtrl.training import GroupSource

from ..agents.grpo_made import SMALL
from .conftest import Faults, killing


def agent_of(tasks: TaskSet) -> GRPOAgent:
    return GRPOAgent(SMALL, tasks, seed=3)


@pytest.mark.usefixtures("ray_cluster")
def test_the_groups_of_a_killed_actor_are_played_again(marks: Path) -> None:
    tasks, heard = registry.task_set(["trial/slow", "trial/walk"]), Faults()
    pool = rollouts_for(tasks, RuntimeConfig(kind="ray", actors=2), heard)
    assert isinstance(pool, PoolRollouts)
    killed, alone = agent_of(tasks), agent_of(tasks)
    try:
        with killing(marks, 1):
            there = GroupSource(lambda: pool).take(killed, ALONE)
        assert pool.backend.replaced == 1
    finally:
        pool.close()
    here = GroupSource(lambda: LocalRollouts(tasks, RuntimeConfig())).take(alone, ALONE)
    assert (heard.seen, pool.quarantined) == ([], {})
    steps = [0, 0]
    for number, (agent, round_) in enumerate(((killed, there), (alone, here))):
        for group in round_:
            assert isinstance(group, EpisodeGroup) and len(group.summaries) == SMALL.group_size
            steps[number] += len(group.reward)
            agent.ingest(group)
        assert agent.due(steps[number], ALONE) == 1
        agent.update(ALONE)
    assert steps[0] == steps[1] and len(there) == len(here) == SMALL.groups
    assert killed.updates == alone.updates
    for name, value in killed.snapshot().tensors.items():
        np.testing.assert_array_equal(value, alone.snapshot().tensors[name], name)
