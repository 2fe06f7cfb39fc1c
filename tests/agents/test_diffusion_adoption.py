"""A trained policy begins one of other tasks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mtrl.agents.diffusion import AGENT, DiffusionConfig
from mtrl.errors import ConfigError
from mtrl.nn import ChunkShape
from mtrl.reducer import ALONE
from mtrl.rollout import Execution
from mtrl.tasks import TaskSet
from mtrl.training import AdoptsTasks, AgentFactory, Datasets

from .demonstrations import choice_data, choice_tasks, task

CONFIG = DiffusionConfig(
    network=ChunkShape(width=32, blocks=1, chunk=2, embedding=4),
    execution=Execution(steps=1),
    batch_size=32,
    warmup=10,
)


def test_known_tasks_stay_and_new_ones_begin_between_them() -> None:
    factory: AgentFactory = AGENT
    assert isinstance(factory, AdoptsTasks)
    theirs, data = choice_tasks(), choice_data()
    parent = AGENT.build(CONFIG, theirs, 0)
    parent.ingest(Datasets(data))
    for _ in range(parent.due(3, ALONE)):
        parent.update(ALONE)
    held = parent.snapshot().tensors
    ours = TaskSet([task("made/new", 3, 1), task("made/follow", 3, 2)])
    found = AGENT.adopted(parent.snapshot(), theirs, ours)
    np.testing.assert_array_equal(found.tensors["embedding.weight"][1], held["embedding.weight"][1])
    np.testing.assert_allclose(found.tensors["embedding.weight"][0], held["embedding.weight"].mean(axis=0))
    np.testing.assert_array_equal(found.tensors["action_mask"], [[1, 0], [1, 1]])
    np.testing.assert_array_equal(found.tensors["state_mask"], np.ones((2, 3)))

    made = AGENT.build(CONFIG, ours, 1, parents={"init_from": AGENT.policy(found, ours)})
    new = choice_data()[1]
    few = {0: new.select(range(2)), 1: new}
    few[0] = type(new)(**{**vars(few[0]), "actions": few[0].actions[:, :1], "labels": few[0].labels[:, :1]})
    made.ingest(Datasets(few))
    assert made.due(4, ALONE) == 4
    begun = made.snapshot().tensors
    np.testing.assert_allclose(begun["mean"][0], few[0].observations["state"].mean(axis=0), rtol=1e-4)
    np.testing.assert_array_equal(begun["mean"][1], held["mean"][1])
    np.testing.assert_array_equal(begun["torso.enter.weight"], held["torso.enter.weight"])
    assert math.isfinite(made.update(ALONE)["loss"])


def test_tasks_of_other_sizes_are_refused() -> None:
    parent = AGENT.build(CONFIG, choice_tasks(), 0)
    with pytest.raises(ConfigError, match=r"state size 3, and these tasks have 5"):
        AGENT.adopted(parent.snapshot(), choice_tasks(), TaskSet([task("made/wide", 5, 2)]))
