"""Task weights and rounds of MT-GRPO: the paper's numbers, and what must hold beside them."""

from __future__ import annotations

import numpy as np
import pytest

from mtrl.agents.grpo.config import SamplerConfig, WeightConfig
from mtrl.agents.grpo.rounds import Collected, RoundSampler
from mtrl.agents.grpo.weights import TaskWeights

PAPER = WeightConfig(floor=0.0, optimiser="sgd", learning_rate=0.3)


def sampler_of(groups: int = 12, tasks: int = 3, **settings: object) -> RoundSampler:
    return RoundSampler(SamplerConfig(**settings), groups, tasks, seed=1)  # type: ignore[arg-type]


def collected(counts: np.ndarray, useful: np.ndarray, first: int = 0) -> list[Collected]:
    """`useful` [K] of the `counts` [K] groups of each task have a gradient."""
    found = []
    for k, (count, kept) in enumerate(zip(counts, useful, strict=True)):
        found += [Collected(k, 0, first + len(found) + i, i, i < kept) for i in range(count)]
    return found


def test_a_step_of_the_weights_is_the_papers() -> None:
    weights = TaskWeights(PAPER, 3, steps=1)
    weights.descend(np.array([0.9, 0.5, 0.1]))
    # g = z (s - z.s) = (0.4, 0, -0.4) / 3
    np.testing.assert_allclose(weights.logits, [-0.04, 0.0, 0.04], atol=1e-12)
    np.testing.assert_allclose(weights.weights, [0.32009, 0.33316, 0.34675], atol=5e-6)


def test_factors_and_proportions_are_the_papers() -> None:
    sampler = sampler_of(acceptance_aware=True, filter=True)
    sampler.filtered[:] = [0.9, 0.5, 0.0]
    np.testing.assert_allclose(sampler.factors, [5.0, 2.0, 1.0])
    np.testing.assert_allclose(sampler.proportions(np.full(3, 1 / 3)), [0.625, 0.25, 0.125])


def test_equal_scores_leave_the_weights_alone() -> None:
    for optimiser in ("adam", "sgd"):
        weights = TaskWeights(WeightConfig(optimiser=optimiser, weight_decay=0.0), 4, steps=2)
        weights.success[:] = 0.5
        for _ in range(20):
            weights.step(np.full(4, 0.05))
        np.testing.assert_allclose(weights.weights, 0.25, atol=1e-6)


def test_improvements_depend_neither_on_scale_nor_on_group_count() -> None:
    """A mean over decisions does not know how many groups it is of; ten times the step is the same again."""
    changes = np.random.default_rng(0).normal(size=(30, 3))
    found = []
    for scale in (1.0, 1e-4):
        weights = TaskWeights(WeightConfig(), 3, steps=4)
        weights.success[:] = [0.2, 0.5, 0.8]
        for change in changes:
            weights.step(weights.improvements(scale * change))
        found.append(weights.weights)
    np.testing.assert_allclose(found[0], found[1], atol=1e-9)


def test_an_absent_task_improves_by_nothing_and_no_improvement_exceeds_the_limit() -> None:
    weights = TaskWeights(WeightConfig(improvement=0.05, improvement_limit=0.1), 3, steps=1)
    np.testing.assert_allclose(weights.improvements(np.array([np.nan, 0.02, -0.02])), [0.0, 0.05, -0.05])
    assert np.abs(weights.improvements(np.array([9.0, np.nan, -9.0]))).max() == 0.1


def test_tasks_that_never_and_always_succeed_stay_inside_the_floor() -> None:
    weights = TaskWeights(WeightConfig(tradeoff=1.0), 2, steps=1)
    for _ in range(500):
        weights.observe(np.array([0.0, 1.0]))
        weights.step(np.zeros(2))
        assert weights.weights.min() >= 0.05 - 1e-12
        assert weights.weights.sum() == pytest.approx(1.0)
    # without the floor the solved task would be forgotten
    assert weights.weights[1] == pytest.approx(0.05, abs=0.01)


def test_success_is_averaged_and_unknown_tasks_stay_as_they_are() -> None:
    weights = TaskWeights(WeightConfig(memory=0.5), 3, steps=1)
    weights.observe(np.array([0.4, np.nan, 1.0]))
    weights.observe(np.array([0.8, np.nan, np.nan]))
    np.testing.assert_allclose(weights.success, [0.6, np.nan, 1.0])


def test_filtered_shares_decay_when_nothing_is_filtered() -> None:
    sampler = sampler_of(filter=True)
    sampler.filtered[:] = [0.8, 0.4, 0.0]
    for _ in range(3):
        counts = sampler.next_counts(np.full(3, 1 / 3))
        assert sampler.add(collected(counts, counts), np.zeros(3))
        sampler.close()
    np.testing.assert_allclose(sampler.filtered, np.array([0.8, 0.4, 0.0]) * 0.9**3)


def test_a_round_is_as_large_as_asked_and_in_the_proportions_of_the_weights() -> None:
    weights = np.array([0.6, 0.3, 0.1])
    sampler = sampler_of(groups=40, kind="weights", filter=True, oversampling=3.0)
    trained = np.zeros(3)
    for _ in range(30):
        counts = sampler.next_counts(weights)
        assert counts.sum() == 120
        assert sampler.add(collected(counts, counts), np.zeros(3))
        chosen = sampler.close()
        assert len(chosen) == 40
        trained += np.bincount([group.task for group in chosen], minlength=3)
    np.testing.assert_allclose(trained / trained.sum(), weights, atol=0.03)


def test_what_the_filter_drops_is_collected_again() -> None:
    """DAPO: the first task loses all but one of its four groups, and gets three more."""
    sampler = sampler_of(groups=12, filter=True, refills=5)
    first = sampler.next_counts(np.full(3, 1 / 3))
    np.testing.assert_array_equal(first, [4, 4, 4])
    assert not sampler.add(collected(first, np.array([1, 4, 4])), np.zeros(3))
    again = sampler.next_counts(np.full(3, 1 / 3))
    np.testing.assert_array_equal(again, [3, 0, 0])
    assert sampler.add(collected(again, again, first=12), np.zeros(3))
    chosen = sampler.close()
    assert np.bincount([group.task for group in chosen]).tolist() == [4, 4, 4]
    assert all(group.useful for group in chosen)
    assert sampler.collected == []


def test_refills_end_and_other_tasks_fill_the_round() -> None:
    sampler = sampler_of(groups=6, filter=True, oversampling=2.0, refills=2)
    rounds, complete = 0, False
    while not complete:
        counts = sampler.next_counts(np.full(3, 1 / 3))
        complete = sampler.add(collected(counts, counts * np.array([0, 1, 1]), 100 * rounds), np.zeros(3))
        rounds += 1
    assert rounds == 3
    chosen = sampler.close()
    # two of each other task, and their spare ones in place of what is missing
    assert len(chosen) == 6 and {group.task for group in chosen} == {1, 2}


def test_refills_are_larger_where_much_is_filtered() -> None:
    sampler = sampler_of(groups=6, tasks=2, filter=True, acceptance_aware=True)
    sampler.filtered[:] = [0.5, 0.0]
    counts = sampler.next_counts(np.full(2, 0.5))
    np.testing.assert_array_equal(counts, [4, 2])
    sampler.add(collected(counts, np.array([1, 2])), np.zeros(2))
    # 2 and 1 are missing, times 2 and 1
    np.testing.assert_array_equal(sampler.next_counts(np.full(2, 0.5)), [4, 1])


def test_frames_are_shared_as_asked_whatever_episodes_take() -> None:
    sampler = sampler_of(groups=10, kind="frames", frames=(1.0, 3.0, 2.0))
    lengths = np.array([50.0, 10.0, 200.0])
    for _ in range(200):
        counts = sampler.next_counts(np.full(3, 1 / 3))
        sampler.started += counts
        sampler.add(collected(counts, counts), counts * lengths)
        sampler.close()
    np.testing.assert_allclose(sampler.frames / sampler.frames.sum(), [1 / 6, 1 / 2, 1 / 3], atol=0.02)


def test_a_restored_sampler_continues_the_round() -> None:
    one, two = (sampler_of(groups=12, kind="weights", filter=True) for _ in range(2))
    weights = np.array([0.5, 0.3, 0.2])
    counts = one.next_counts(weights)
    one.add(collected(counts, counts // 2), np.zeros(3))
    two.load_state_dict(one.state_dict(), under_way=True)
    for _ in range(3):
        counts = one.next_counts(weights)
        np.testing.assert_array_equal(counts, two.next_counts(weights))
        for sampler in (one, two):
            if sampler.add(collected(counts, counts), np.zeros(3)):
                chosen = sampler.close()
        assert chosen
