"""Golden values of TorchJD 0.18, properties, and Gramians without full rank."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mtrl import registry
from mtrl.errors import MtrlError, OutOfRangeError, UnknownNameError
from mtrl.gradients import WeightingInputs, make_weighting, weighting_named
from mtrl.gradients.weightings.pcgrad import project

from .asserts import (
    assert_homogeneous,
    assert_linear_under_scaling,
    assert_non_conflicting,
    assert_permutation_invariant,
    weights_of,
)

TWO = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
FOUR = np.array(
    [[2.0, -1, 0, 3, 1], [-1.0, 4, 1, -2, 0], [1.0, 1, -3, 0, 2], [-2.0, -1, 2, 1, -4]],
)
BY_GRAMIAN = sorted(name for name in registry.names("weighting") if weighting_named(name).needs_gramian)

GOLDEN_WEIGHTS = {
    "pcgrad": (2.2222, 1.5789),
    "gradvac": (2.2222, 1.5789),
    "upgrad": (1.1109, 0.7894),
    "dualproj": (0.6109, 0.5),
    "mgda": (0.6, 0.4),
    "imtl_g": (0.5923, 0.4077),
    "aligned_mtl": (0.5591, 0.4083),
    "fairgrad": (0.5915, 0.4071),
    "cagrad": (0.7041, 0.5),
}
GOLDEN_UPDATES = {
    "sum": (2.0, 2.0, 2.0),
    "mgda": (0.0, 1.0, 1.0),
    "upgrad": (0.2929, 1.9004, 1.9004),
    "cagrad": (0.1835, 1.2041, 1.2041),
    "nash_mtl": (0.0542, 0.7061, 0.7061),
    "config": (0.1588, 2.0706, 2.0706),
    "fairgrad": (0.0766, 0.9985, 0.9985),
    "pcgrad": (0.5848, 3.8012, 3.8012),
}
# Weights that TorchJD finds for the four rows above.
GOLDEN_FOUR = [
    ("imtl_g", {}, (0.18572032, 0.16448163, 0.34808955, 0.30170849), 1e-7),
    ("aligned_mtl", {}, (0.19980869, 0.17706825, 0.27567013, 0.24903244), 1e-7),
    ("aligned_mtl", {"scale": "rmse"}, (0.56311696, 0.49902800, 0.77691579, 0.70184328), 1e-7),
    ("aligned_mtl", {"scale": "median"}, (0.29615743, 0.26245142, 0.40859963, 0.36911711), 1e-7),
    ("fairgrad", {"alpha": 2.0}, (0.40454733, 0.34787936, 0.62840673, 0.55166263), 1e-6),
]


def rows_of(tasks: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(tasks, size))


@pytest.mark.parametrize("name", GOLDEN_WEIGHTS)
def test_golden_weights(name: str) -> None:
    assert weights_of(name, TWO @ TWO.T) == pytest.approx(GOLDEN_WEIGHTS[name], abs=1e-4)


@pytest.mark.parametrize("name", GOLDEN_UPDATES)
def test_golden_updates(name: str) -> None:
    assert weights_of(name, TWO @ TWO.T) @ TWO == pytest.approx(GOLDEN_UPDATES[name], abs=1e-4)


@pytest.mark.parametrize(("name", "options", "expected", "tolerance"), GOLDEN_FOUR)
def test_golden_weights_of_four(
    name: str, options: dict[str, object], expected: tuple[float, ...], tolerance: float
) -> None:
    assert weights_of(name, FOUR @ FOUR.T, options) == pytest.approx(expected, abs=tolerance)


def test_mgda_is_at_least_as_short_as_that_of_torchjd() -> None:
    gramian = FOUR @ FOUR.T
    theirs = np.array([0.19184645180458182, 0.1667210615876239, 0.34518828496444715, 0.2962442016433465])
    ours = weights_of("mgda", gramian)
    assert ours.min() >= 0 and ours.sum() == pytest.approx(1)
    assert ours @ gramian @ ours <= theirs @ gramian @ theirs + 1e-12
    # the condition for a minimum on the simplex: no gradient is nearer to the update than the update itself
    assert (gramian @ ours).min() >= ours @ gramian @ ours - 1e-9


def test_pcgrad_in_given_orders_is_that_of_torchjd() -> None:
    # by hand for two: w = (1 + 22 / 18, 1 + 22 / 38)
    assert project(TWO @ TWO.T, np.array([[0, 1], [0, 1]])) == pytest.approx((1 + 22 / 18, 1 + 22 / 38))
    orders = np.array([[1, 2, 3, 0], [3, 1, 0, 2], [2, 0, 1, 3], [0, 3, 2, 1]])
    expected = (2.0871794871794873, 1.7818181818181817, 2.08, 1.9265734265734267)
    assert project(FOUR @ FOUR.T, orders) == pytest.approx(expected, rel=1e-12)


def test_pcgrad_is_the_algorithm_of_the_paper_on_vectors() -> None:
    rows = rows_of(12, 6)
    orders = np.random.default_rng(3).permuted(np.tile(np.arange(12), (12, 1)), axis=1)
    total = np.zeros(6)
    for task, order in enumerate(orders):
        moved = rows[task].copy()
        for other in order:
            product = moved @ rows[other]
            if other != task and product < 0:
                moved -= product / (rows[other] @ rows[other]) * rows[other]
        total += moved
    assert project(rows @ rows.T, orders) @ rows == pytest.approx(total)


@pytest.mark.parametrize("name", ["upgrad", "dualproj", "mgda"])
@pytest.mark.parametrize(("tasks", "size"), [(3, 10), (10, 30), (20, 20)])
def test_updates_that_harm_no_task(name: str, tasks: int, size: int) -> None:
    # The cone is that of a Gramian with 1e-4 of its trace added.
    assert_non_conflicting(name, rows_of(tasks, size), 1e-3)


@pytest.mark.parametrize("name", sorted(set(BY_GRAMIAN) - {"pcgrad", "gradvac"}))
def test_the_order_of_tasks_does_not_matter(name: str) -> None:
    assert_permutation_invariant(name, rows_of(6, 20))


@pytest.mark.parametrize(
    ("name", "degree"),
    [
        ("pcgrad", 1), ("cagrad", 1), ("mgda", 1), ("upgrad", 1), ("dualproj", 1), ("aligned_mtl", 1),
        ("imtl_g", 1), ("config", 1), ("fairgrad", 0), ("nash_mtl", 0), ("gradvac", 1),
    ],
)  # fmt: skip
def test_scaling_all_gradients(name: str, degree: float) -> None:
    assert_homogeneous(name, rows_of(6, 20), degree)


def test_upgrad_is_linear_under_scaling() -> None:
    assert_linear_under_scaling("upgrad", rows_of(4, 8))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("tasks", [2, 10, 50])
def test_fair_weights_solve_their_equation(alpha: float, tasks: int) -> None:
    # very unequal lengths, as losses of unlike tasks have
    rows = rows_of(tasks, 4 * tasks) * np.logspace(-3, 3, tasks)[:, None]
    gramian = rows @ rows.T
    weights = weights_of("fairgrad", gramian, {"alpha": alpha})
    assert np.abs(gramian @ weights * weights ** (1 / alpha) - 1).max() < 1e-8


def test_nash_is_the_fair_direction_at_length_one() -> None:
    rows = rows_of(7, 30)
    fair, nash = (weights_of(name, rows @ rows.T) for name in ("fairgrad", "nash_mtl"))
    assert nash / nash.sum() == pytest.approx(fair / fair.sum())
    assert np.linalg.norm(nash @ rows) == pytest.approx(1.0)


def test_imtl_g_projects_alike_onto_every_gradient() -> None:
    rows = rows_of(7, 30)
    shares = rows @ (weights_of("imtl_g", rows @ rows.T) @ rows) / np.linalg.norm(rows, axis=1)
    assert shares == pytest.approx(np.full(7, shares[0]))


def test_config_has_the_same_angle_to_every_gradient() -> None:
    rows = rows_of(7, 30)
    update = weights_of("config", rows @ rows.T) @ rows
    shares = rows @ update / np.linalg.norm(rows, axis=1)
    assert shares == pytest.approx(np.full(7, shares[0]))


def test_cagrad_is_the_average_at_radius_0_and_solves_the_worst_case() -> None:
    rows = rows_of(5, 12)
    average = rows.mean(0)
    assert weights_of("cagrad", rows @ rows.T, {"radius": 0.0}) @ rows == pytest.approx(average)
    update = weights_of("cagrad", rows @ rows.T, {"radius": 0.8}) @ rows
    reach = 0.8 * np.linalg.norm(average)
    assert np.linalg.norm(update - average) == pytest.approx(reach, rel=1e-6)
    # no other direction in the ball does more for the worst task
    trials = np.random.default_rng(4).normal(size=(20000, 12))
    trials = average + reach * trials / np.linalg.norm(trials, axis=1, keepdims=True)
    assert (trials @ rows.T).min(1).max() <= (rows @ update).min() + 1e-8


@pytest.mark.parametrize("name", BY_GRAMIAN)
@pytest.mark.parametrize("kind", ["low rank", "duplicates", "opposed", "zero row", "all zero"])
def test_gramians_without_full_rank_give_finite_weights(name: str, kind: str) -> None:
    rows = rows_of(12, 5)
    if kind == "duplicates":
        rows = np.repeat(rows_of(6, 40), 2, axis=0)
    elif kind == "opposed":
        rows = np.concatenate([rows_of(6, 40), -rows_of(6, 40)])
    elif kind == "zero row":
        rows = rows_of(12, 40)
        rows[3] = 0.0
    elif kind == "all zero":
        rows = np.zeros((12, 5))
    weighting = make_weighting(name, 12)
    weights = weighting.weights(WeightingInputs(np.ones(12), rows @ rows.T))
    assert np.isfinite(weights).all()
    if name in ("fairgrad", "nash_mtl", "imtl_g", "aligned_mtl", "config"):
        assert weighting.deficient == (kind in ("low rank", "duplicates", "opposed"))


def test_upgrad_ends_on_a_gramian_of_low_rank_and_stays_in_the_cone() -> None:
    for seed in range(20):
        assert_non_conflicting("upgrad", rows_of(10, 4, seed), 1e-3)


def test_gradnorm_follows_its_equation() -> None:
    weighting = make_weighting("gradnorm", 2, options={"alpha": 1.0, "learning_rate": 0.1})
    gramian = np.diag([4.0, 16.0])
    # lengths 2 and 4, mean 3, targets 3 and 3: w = 1 + .1 * 2/3 and 1 - .1 * 4/3, scaled to sum 2
    first = np.array([1 + 0.2 / 3, 1 - 0.4 / 3])
    expected = 2 * first / first.sum()
    assert weighting.weights(WeightingInputs(np.ones(2), gramian)) == pytest.approx(expected)


def test_famo_weighs_by_inverse_losses_and_favours_what_fell_least() -> None:
    weighting = make_weighting("famo", 2, options={"weight_decay": 0.0})
    weights = weighting.weights(WeightingInputs(np.array([1.0, 4.0])))
    # z = 1/2 each: (.5 / 1, .5 / 4) normalised
    assert weights == pytest.approx((0.8, 0.2), rel=1e-6)
    weighting.observe_post_step_losses(np.array([0.5, 4.0]))
    # Adam's first step moves each logit by its learning rate: down for task 0, whose loss fell
    state = weighting.state_dict()["logits"]
    assert state.tolist() == pytest.approx([-0.025, 0.025], rel=1e-5)


def test_uncertainty_lets_large_losses_weigh_less() -> None:
    weighting = make_weighting("uncertainty", 2, options={"learning_rate": 0.1})
    assert weighting.weights(WeightingInputs(np.array([3.0, 0.2]))) == pytest.approx((0.5, 0.5))
    # s moves by +-.1: weights exp(-.1) / 2 and exp(.1) / 2
    second = weighting.weights(WeightingInputs(np.array([3.0, 0.2])))
    assert second == pytest.approx((0.5 * np.exp(-0.1), 0.5 * np.exp(0.1)), rel=1e-6)


def test_dwa_compares_the_last_two_periods() -> None:
    weighting = make_weighting("dwa", 2, options={"period": 1})
    weighting.weights(WeightingInputs(np.array([1.0, 1.0])))
    weights = weighting.weights(WeightingInputs(np.array([0.5, 1.0])))
    raised = np.exp([0.25, 0.5])
    assert weights == pytest.approx(2 * raised / raised.sum())


@pytest.mark.parametrize(("name", "options"), [("gradnorm", {}), ("dwa", {"period": 1})])
def test_a_task_that_counts_nothing_at_first_leaves_the_weights_numbers(
    name: str, options: dict[str, int]
) -> None:
    weighting = make_weighting(name, 2, options=options)
    for first in (0.0, 0.0, 3.0, 1.5):
        weights = weighting.weights(WeightingInputs(np.array([first, 1.0]), np.diag([first, 1.0])))
        assert np.isfinite(weights).all()


@pytest.mark.parametrize("name", registry.names("weighting"))
def test_state_continues_where_it_was(name: str) -> None:
    def inputs(step: int) -> WeightingInputs:
        rows = rows_of(5, 20, step)
        losses = np.random.default_rng(step).uniform(0.5, 2.0, 5)
        return WeightingInputs(losses, rows @ rows.T, np.eye(5))

    first, second = make_weighting(name, 5, 3), make_weighting(name, 5, 3)
    for step in range(3):
        first.weights(inputs(step))
        first.observe_post_step_losses(np.full(5, 0.7))
    second.load_state_dict(first.state_dict())
    for step in range(3, 6):
        assert np.array_equal(first.weights(inputs(step)), second.weights(inputs(step)))
    assert all(isinstance(value, torch.Tensor | int | type(None)) for value in first.state_dict().values())


def test_wrong_names_and_values_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown gradient method 'pcgard'; did you mean 'pcgrad'"):
        make_weighting("pcgard", 3)
    with pytest.raises(UnknownNameError, match="setting of gradient method 'cagrad'"):
        make_weighting("cagrad", 3, options={"radios": 1.0})
    for name, options in [
        ("cagrad", {"radius": -1.0}), ("upgrad", {"regularisation": 0.0}),
        ("dualproj", {"regularisation": 0.0}),
        ("fairgrad", {"alpha": 0.0}), ("nash_mtl", {"max_norm": 0.0}), ("gradnorm", {"learning_rate": 0.0}),
        ("famo", {"weight_decay": -1.0}), ("dwa", {"period": 0}), ("graddrop", {"leak": 2.0}),
    ]:  # fmt: skip
        with pytest.raises(OutOfRangeError):
            make_weighting(name, 3, options=options)
    with pytest.raises(MtrlError):
        make_weighting("gcond", 3, options={"weak": -0.9})
    with pytest.raises(MtrlError):
        make_weighting("aligned_mtl", 3, options={"scale": "max"})
