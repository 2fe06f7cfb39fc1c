"""Densities and samples against torch's own distributions and numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from torch import distributions as oracle

from mtrl.nn import Gaussian, TanhGaussian, draw_index, masked_log_softmax

DOUBLE = torch.float64


def policy(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Means, log standard deviations and noise."""
    source = torch.Generator().manual_seed(seed)
    mean, log_std, noise = (torch.randn(shape, generator=source, dtype=DOUBLE) for _ in range(3))
    return mean, 0.5 * log_std - 1.0, noise


def squashed(mean: torch.Tensor, log_std: torch.Tensor) -> oracle.Distribution:
    base = oracle.TransformedDistribution(
        oracle.Normal(mean, log_std.exp()), [oracle.TanhTransform(cache_size=1)]
    )
    return oracle.Independent(base, 1)


def test_log_probability_of_a_squashed_sample_is_torchs() -> None:
    mean, log_std, noise = policy(4, 5, 3)
    ours = TanhGaussian(mean, log_std)
    action, log_probability = ours.sample(noise)
    torch.testing.assert_close(log_probability, squashed(mean, log_std).log_prob(action), atol=1e-8, rtol=0)
    assert torch.equal(ours.action(noise), action)
    torch.testing.assert_close(ours.log_prob(mean + log_std.exp() * noise, noise), log_probability)


def test_the_squashed_density_by_hand() -> None:
    # u = 0, std 1: log N(0) = -ln(2 pi)/2 and the derivative of tanh is 1
    zero = torch.zeros(1, 1)
    assert TanhGaussian(zero, zero).sample(zero)[1].item() == pytest.approx(-0.9189385, abs=1e-6)


def test_the_squashed_density_integrates_to_one() -> None:
    grid = torch.linspace(-1 + 1e-6, 1 - 1e-6, 200_001, dtype=DOUBLE)
    mean, log_std = torch.full((1,), 0.3, dtype=DOUBLE), torch.full((1,), -0.5, dtype=DOUBLE)
    drawn = grid.atanh()[:, None]
    density = TanhGaussian(mean, log_std).log_prob(drawn, (drawn - mean) / log_std.exp()).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1.0, abs=1e-5)


def test_saturated_samples_have_finite_log_probabilities_and_gradients() -> None:
    mean = torch.tensor([[40.0, -40.0, 0.0]], requires_grad=True)
    log_std = torch.tensor([[2.0, -20.0, 2.0]], requires_grad=True)
    action, log_probability = TanhGaussian(mean, log_std).sample(torch.tensor([[0.5, -1.0, 3.0]]))
    (log_probability.sum() + action.sum()).backward()
    assert log_probability.isfinite().all() and mean.grad.isfinite().all() and log_std.grad.isfinite().all()


@pytest.mark.parametrize("kind", [Gaussian, TanhGaussian])
def test_padded_dimensions_do_not_exist(kind: type[Gaussian]) -> None:
    mean, log_std, noise = policy(2, 5, 3)
    mask = torch.tensor([[True, True, False], [True, True, True]])[:, None]
    padded, narrow = kind(mean, log_std, mask), kind(mean[:1, :, :2], log_std[:1, :, :2])
    action, log_probability = padded.sample(noise)
    assert (action[0, :, 2] == 0).all() and (padded.mode()[0, :, 2] == 0).all()
    narrow_action, narrow_log_probability = narrow.sample(noise[:1, :, :2])
    torch.testing.assert_close(action[:1, :, :2], narrow_action)
    torch.testing.assert_close(log_probability[:1], narrow_log_probability)


def test_a_mask_of_ones_masks_nothing() -> None:
    mean, log_std, noise = (part.float() for part in policy(2, 5, 3))
    plain = TanhGaussian(mean, log_std).sample(noise)
    masked = TanhGaussian(mean, log_std, torch.ones(2, 1, 3)).sample(noise)
    for quick, slow in zip(plain, masked, strict=True):
        torch.testing.assert_close(quick, slow)


def test_a_plain_gaussian_is_torchs() -> None:
    mean, log_std, noise = policy(4, 3)
    action, log_probability = Gaussian(mean, log_std).sample(noise)
    theirs = oracle.Independent(oracle.Normal(mean, log_std.exp()), 1)
    torch.testing.assert_close(log_probability, theirs.log_prob(action))
    assert torch.equal(Gaussian(mean, log_std).mode(), mean)


def test_samples_carry_gradients() -> None:
    mean, log_std, noise = policy(3, 2)
    mean.requires_grad_(), log_std.requires_grad_()
    TanhGaussian(mean, log_std).sample(noise)[0].sum().backward()
    assert mean.grad.abs().min() > 0 and log_std.grad.abs().min() > 0


def test_illegal_actions_have_probability_zero_and_no_gradient() -> None:
    logits = torch.tensor([[1.0, 50.0, 1.0]], requires_grad=True)
    found = masked_log_softmax(logits, torch.tensor([[True, False, True]]))
    torch.testing.assert_close(found.exp(), torch.tensor([[0.5, 0.0, 0.5]]))
    found[0, 0].backward()
    assert logits.grad[0, 1] == 0 and logits.grad.isfinite().all()


def test_indices_are_drawn_by_their_probability() -> None:
    generator = np.random.default_rng(0)
    drawn = [draw_index(np.array([1.0, 0.0, 3.0]), generator) for _ in range(2000)]
    assert set(drawn) == {0, 2} and np.mean(drawn) == pytest.approx(1.5, abs=0.06)


def test_half_precision_is_computed_in_single() -> None:
    mean = torch.zeros(2, 3, dtype=torch.bfloat16)
    assert TanhGaussian(mean, mean).sample(torch.zeros(2, 3))[1].dtype == torch.float32
    assert masked_log_softmax(mean, torch.ones(3, dtype=torch.bool)).dtype == torch.float32
    assert TanhGaussian(mean, mean).log_std[0, 0].item() == math.log(1.0)
