"""The policy's loop under a clock that the test sets, against a scripted robot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mtrl.deployment import ArtefactPolicy, GuardConfig, open_artefact
from mtrl.deployment.realtime.controller import ChunkController
from mtrl.deployment.realtime.policy_loop import PolicyLoop
from mtrl.deployment.realtime.records import ControlField, ProposalField

from .bench_suite import SUITE
from .graphs import STEER, linear_artefact
from .scripted import ACTION, PERIOD, Scripted, observe


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> ArtefactPolicy:
    directory = tmp_path_factory.mktemp("policy") / "artefact"
    linear_artefact(directory, [SUITE.task("bench/point")], STEER, chunk=4, execute=2)
    return ArtefactPolicy(open_artefact(directory))


def proposals(
    policy: ArtefactPolicy, script: list[tuple[float, Callable[[Scripted], None]]]
) -> list[tuple[int, int, list[float]]]:
    """Tick, whether it was planned, and action of every proposal."""
    world = Scripted(script)
    found: list[tuple[int, int, list[float]]] = []

    def note() -> None:
        record = np.zeros(world.memory.proposals.width)
        if world.memory.proposals.read(record) is not None:
            assert record[ProposalField.EPISODE] == 1
            one = (
                int(record[ProposalField.TICK]),
                int(record[ProposalField.PLANNED]),
                record[len(ProposalField) :].tolist(),
            )
            if one not in found[-1:]:
                found.append(one)

    limits = GuardConfig(action_size=2, hold=("zero", "last"))
    controller = ChunkController(policy, policy.manifest.tasks[0], np.random.default_rng(0))
    loop = PolicyLoop(controller, limits, world.memory, 1, (4, 2), PERIOD, world.clock, world.sleep)
    loop.run(note)
    return found


def on_time(ticks: int) -> list[tuple[float, Callable[[Scripted], None]]]:
    observations = [(1 + tick * PERIOD, observe(tick)) for tick in range(ticks)]
    return [*observations, (1 + ticks * PERIOD, observe(ticks, ended=True))]


def test_every_observation_gets_one_proposal(policy: ArtefactPolicy) -> None:
    found = proposals(policy, on_time(10))
    assert [tick for tick, _, _ in found] == list(range(10))
    assert np.array([action for _, _, action in found]) == pytest.approx(np.tile(ACTION, (10, 1)), abs=1e-6)


def test_a_chunk_is_executed_half_and_then_planned_again(policy: ArtefactPolicy) -> None:
    assert [planned for _, planned, _ in proposals(policy, on_time(6))] == [1, 0, 1, 0, 1, 0]


def test_actions_of_skipped_ticks_are_skipped(policy: ArtefactPolicy) -> None:
    script = [event for index, event in enumerate(on_time(8)) if index not in (3, 4, 5)]
    found = proposals(policy, script)
    assert [tick for tick, _, _ in found] == [0, 1, 2, 6, 7]
    # tick 6 lies beyond the chunk that was planned at tick 2, so it plans
    assert [planned for _, planned, _ in found[-2:]] == [1, 0]


def test_a_plan_that_the_servo_held_is_not_taken_up_again(policy: ArtefactPolicy) -> None:
    def held(world: Scripted) -> None:
        world.memory.control[ControlField.HELD] += 1

    found = proposals(policy, [*on_time(6), (1 + 2.5 * PERIOD, held)])
    assert [planned for _, planned, _ in found] == [1, 0, 1, 1, 0, 1]


@pytest.mark.parametrize(
    "bad", [observe(2, [np.nan, 0, 0, 0]), observe(2, [0, 2000.0, 0, 0]), observe(2, age=0.05)]
)
def test_a_bad_observation_reaches_neither_the_history_nor_the_plan(
    policy: ArtefactPolicy, bad: Callable[[Scripted], None]
) -> None:
    script = on_time(5)
    script[2] = (script[2][0], bad)
    found = proposals(policy, script)
    assert [tick for tick, _, _ in found] == [0, 1, 3, 4]
    assert found[2][2] == pytest.approx(ACTION, abs=1e-6)


def test_observations_of_another_episode_are_ignored(policy: ArtefactPolicy) -> None:
    found = proposals(policy, [(0.5, observe(7, episode=9)), *on_time(2)])
    assert [tick for tick, _, _ in found] == [0, 1]
