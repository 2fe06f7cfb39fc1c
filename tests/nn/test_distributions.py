"""Densities, entropies and samples against torch's own distributions and numbers worked out by hand."""

import math

import pytest
import torch
from torch import distributions as oracle

from mtrl.errors import SpaceError
from mtrl.nn import Categorical, Gaussian, TanhGaussian, TwoHot
from mtrl.nn.distributions import log_slope, symexp, symlog

DOUBLE = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def policy(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    source = generator(seed)
    return (
        torch.randn(shape, generator=source, dtype=DOUBLE),
        0.5 * torch.randn(shape, generator=source, dtype=DOUBLE) - 1.0,
    )


def squashed(mean: torch.Tensor, log_std: torch.Tensor) -> oracle.Distribution:
    base = oracle.TransformedDistribution(
        oracle.Normal(mean, log_std.exp()), [oracle.TanhTransform(cache_size=1)]
    )
    return oracle.Independent(base, 1)


def test_log_probability_of_a_squashed_sample_is_torchs() -> None:
    mean, log_std = policy(4, 5, 3)
    action, log_probability = TanhGaussian(mean, log_std).sample(generator())
    torch.testing.assert_close(log_probability, squashed(mean, log_std).log_prob(action), atol=1e-8, rtol=0)
    torch.testing.assert_close(
        TanhGaussian(mean, log_std).log_prob(action), log_probability, atol=1e-8, rtol=0
    )


def test_the_squashed_density_by_hand() -> None:
    # u = 0, std 1: log N(0) = -ln(2 pi)/2 and the slope of tanh is 1
    found = TanhGaussian(torch.zeros(1, 1), torch.zeros(1, 1)).log_prob(torch.zeros(1, 1))
    assert found.item() == pytest.approx(-0.9189385, abs=1e-6)


def test_the_squashed_density_integrates_to_one() -> None:
    grid = torch.linspace(-1 + 1e-6, 1 - 1e-6, 200_001, dtype=DOUBLE)
    found = TanhGaussian(torch.full((1,), 0.3, dtype=DOUBLE), torch.full((1,), -0.5, dtype=DOUBLE))
    density = found.log_prob(grid[:, None]).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1.0, abs=1e-5)


def test_saturated_samples_have_finite_log_probabilities_and_gradients() -> None:
    mean = torch.tensor([[40.0, -40.0, 0.0]], requires_grad=True)
    log_std = torch.tensor([[2.0, -20.0, 2.0]], requires_grad=True)
    action, log_probability = TanhGaussian(mean, log_std).sample(generator())
    (log_probability.sum() + action.sum()).backward()
    assert log_probability.isfinite().all() and mean.grad.isfinite().all() and log_std.grad.isfinite().all()
    edge = TanhGaussian(mean, log_std.clamp(min=-5)).log_prob(torch.tensor([[1.0, -1.0, 1.0]]))
    assert edge.isfinite().all()


def test_the_logarithm_of_tanhs_slope_is_exact_far_out_and_at_zero() -> None:
    before = torch.tensor([0.0, 1.0, -1.0, 30.0], dtype=DOUBLE, requires_grad=True)
    found = log_slope(before)
    naive = torch.log(1 - torch.tanh(before[:3]) ** 2)
    torch.testing.assert_close(found[:3], naive, atol=1e-12, rtol=0)
    assert found[3].item() == pytest.approx(2 * (math.log(2) - 30), abs=1e-12)
    found.sum().backward()
    torch.testing.assert_close(before.grad, -2 * torch.tanh(before.detach()), atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", [Gaussian, TanhGaussian])
def test_padded_dimensions_do_not_exist(kind: type[Gaussian]) -> None:
    mean, log_std = policy(2, 5, 3)
    mask = torch.tensor([[True, True, False], [True, True, True]])[:, None]
    wide, narrow = kind(mean, log_std, mask), kind(mean[:1, :, :2], log_std[:1, :, :2])
    action, log_probability = wide.sample(generator())
    assert (action[0, :, 2] == 0).all() and (wide.mode()[0, :, 2] == 0).all()
    torch.testing.assert_close(wide.log_prob(action)[:1], narrow.log_prob(action[:1, :, :2]))
    torch.testing.assert_close(wide.entropy()[:1], narrow.entropy())
    torch.testing.assert_close(log_probability, wide.log_prob(action))


def test_a_plain_gaussian_is_torchs() -> None:
    mean, log_std = policy(4, 3)
    ours, theirs = Gaussian(mean, log_std), oracle.Independent(oracle.Normal(mean, log_std.exp()), 1)
    action, log_probability = ours.sample(generator())
    torch.testing.assert_close(log_probability, theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, -2.0), (0.7, -0.5), (0.0, 0.0), (-2.0, 1.0)])
def test_the_entropy_of_a_squashed_gaussian_is_its_integral(mean: float, log_std: float) -> None:
    found = TanhGaussian(torch.tensor([mean], dtype=DOUBLE), torch.tensor([log_std], dtype=DOUBLE))
    before = torch.linspace(
        mean - 12 * math.exp(log_std), mean + 12 * math.exp(log_std), 100_001, dtype=DOUBLE
    )
    normal = oracle.Normal(mean, math.exp(log_std)).log_prob(before)
    density = normal - log_slope(before)
    expected = -torch.trapezoid(normal.exp() * density, before)
    assert found.entropy().item() == pytest.approx(expected.item(), abs=2e-3)


def test_samples_follow_the_generator_and_carry_gradients() -> None:
    mean, log_std = (part.requires_grad_() for part in policy(3, 2))
    first, again = (TanhGaussian(mean, log_std).sample(generator(7))[0] for _ in range(2))
    assert torch.equal(first, again)
    first.sum().backward()
    assert mean.grad.abs().min() > 0 and log_std.grad.abs().min() > 0


def test_illegal_actions_have_probability_zero_and_no_gradient() -> None:
    logits = torch.tensor([[1.0, 50.0, 1.0]], requires_grad=True)
    found = Categorical(logits, torch.tensor([[True, False, True]]))
    torch.testing.assert_close(found.probabilities, torch.tensor([[0.5, 0.0, 0.5]]))
    assert found.entropy().item() == pytest.approx(math.log(2))
    assert found.mode().item() in (0, 2)
    found.entropy().sum().backward()
    assert logits.grad[0, 1] == 0 and logits.grad.isfinite().all()
    many = Categorical(logits.expand(2000, 3), torch.tensor([[True, False, True]]))
    index, log_probability = many.sample(generator())
    assert set(index.tolist()) == {0, 2}
    torch.testing.assert_close(log_probability, torch.full((2000,), -math.log(2)))


def test_a_row_without_legal_actions_is_silent() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    found = Categorical(logits, torch.tensor([[False, False, False], [True, True, True]]))
    assert found.probabilities[0].sum() == 0 and found.entropy()[0] == 0
    index, _ = found.sample(generator())
    assert index.shape == (2,)
    found.entropy().sum().backward()
    assert logits.grad.isfinite().all() and (logits.grad[0] == 0).all()


def test_a_legal_categorical_is_torchs() -> None:
    logits = torch.randn(5, 4, dtype=DOUBLE, generator=generator())
    ours, theirs = Categorical(logits), oracle.Categorical(logits=logits)
    index = torch.tensor([0, 1, 2, 3, 0])
    torch.testing.assert_close(ours.log_prob(index), theirs.log_prob(index))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    assert torch.equal(ours.mode(), logits.argmax(-1))


CENTRES = torch.linspace(-10, 10, 101, dtype=DOUBLE)


def test_two_hot_by_hand() -> None:
    # centres 0.2 apart: 0.05 lies a quarter of the way from 0 (bin 50) to 0.2 (bin 51)
    target = TwoHot(torch.zeros(1, 101, dtype=DOUBLE), CENTRES).target(torch.tensor([0.05], dtype=DOUBLE))
    assert target[0, 50].item() == pytest.approx(0.75) and target[0, 51].item() == pytest.approx(0.25)
    assert target.sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize("symmetric_log", [False, True])
def test_the_mean_of_a_target_is_the_value_and_beyond_the_ends_the_end(symmetric_log: bool) -> None:
    value = torch.tensor([-9.99, -10.0, 0.0, 3.3, 10.0, 1e9, -1e9], dtype=DOUBLE)
    target = TwoHot(torch.zeros(7, 101, dtype=DOUBLE), CENTRES, symmetric_log).target(value)
    end = symexp(CENTRES[-1]).item() if symmetric_log else 10.0
    centred = (target * CENTRES).sum(-1)
    found = symexp(centred) if symmetric_log else centred
    torch.testing.assert_close(found, value.clamp(-end, end))


def test_the_value_loss_is_the_cross_entropy_to_the_target_and_least_at_it() -> None:
    logits = torch.randn(4, 101, dtype=DOUBLE, generator=generator())
    value = torch.tensor([-20.0, -3.14, 0.0, 9.99], dtype=DOUBLE)
    found = TwoHot(logits, CENTRES)
    expected = (found.target(value) * logits.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(found.log_prob(value), expected)
    best = TwoHot(found.target(value).clamp_min(1e-30).log(), CENTRES)
    assert (best.log_prob(value) >= found.log_prob(value)).all()
    torch.testing.assert_close(best.mean(), value.clamp(-10, 10))


def test_uniform_logits_have_mean_zero_and_full_entropy() -> None:
    found = TwoHot(torch.zeros(2, 101), CENTRES)
    torch.testing.assert_close(found.mean(), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.entropy(), torch.full((2,), math.log(101)))
    drawn, log_probability = found.sample(generator())
    assert drawn.abs().max() <= 10 and log_probability[0].item() == pytest.approx(-math.log(101), abs=1e-5)


def test_symlog_and_its_inverse() -> None:
    value = torch.tensor([-1e4, -1.0, 0.0, 0.5, 1e6], dtype=DOUBLE)
    torch.testing.assert_close(symexp(symlog(value)), value)
    assert symlog(torch.tensor(math.e - 1)).item() == pytest.approx(1.0)


def test_bins_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SpaceError, match="101 logits need as many centres"):
        TwoHot(torch.zeros(2, 101), CENTRES[:-1])


def test_half_precision_is_computed_in_single() -> None:
    mean = torch.zeros(2, 3, dtype=torch.bfloat16)
    assert TanhGaussian(mean, mean).sample(generator())[1].dtype == torch.float32
    assert Categorical(mean).entropy().dtype == torch.float32
