"""The noise grid and the sampler against diffusers, closed forms and properties."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from mtrl.agents.diffusion.config import NoiseLevels
from mtrl.agents.diffusion.denoiser import Denoiser, preconditioning, sample, sigma_grid
from mtrl.agents.diffusion.view import View
from mtrl.nn import ChunkNetwork, ChunkShape
from mtrl.spaces import ActionSpec, Layout, ObservationSpec

LEVELS = NoiseLevels()


def layout() -> Layout:
    """A wide task and a narrow one."""
    return Layout(
        observations=(ObservationSpec(state=3), ObservationSpec(state=2)),
        actions=(ActionSpec(continuous=2), ActionSpec(continuous=1)),
    )


def network() -> ChunkNetwork:
    """A small network; its output layer starts at zero."""
    return ChunkNetwork(ChunkShape(width=16, blocks=1, chunk=4, embedding=4), layout())


def view(net: ChunkNetwork, states: torch.Tensor, task: torch.Tensor) -> View:
    return View(net.condition(states, task), task)


def perturbed_network() -> ChunkNetwork:
    """The same with every weight moved, so that nothing is zero by construction."""
    net = network()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return net


def test_grid_is_that_of_diffusers() -> None:
    from diffusers import EDMEulerScheduler

    oracle = EDMEulerScheduler(
        sigma_min=LEVELS.minimum,
        sigma_max=LEVELS.maximum,
        sigma_data=LEVELS.data_deviation,
        rho=LEVELS.rho,
    )
    oracle.set_timesteps(10)
    np.testing.assert_allclose(sigma_grid(LEVELS, 10).numpy(), oracle.sigmas.numpy(), rtol=1e-5)


def test_sampling_steps_are_those_of_diffusers() -> None:
    from diffusers import EDMEulerScheduler

    net = perturbed_network().eval()
    states, task = torch.randn(2, 1, 3), torch.tensor([0, 1])
    noise = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(1))
    ours = sample(Denoiser(net, LEVELS), view(net, states, task), noise, 10)

    oracle = EDMEulerScheduler(
        sigma_min=LEVELS.minimum,
        sigma_max=LEVELS.maximum,
        sigma_data=LEVELS.data_deviation,
        rho=LEVELS.rho,
    )
    oracle.set_timesteps(10)
    mask, condition = net.chunk_mask(task), net.condition(states, task)
    noisy = noise * LEVELS.maximum * mask
    with torch.no_grad():
        for t in oracle.timesteps:
            scaled = oracle.scale_model_input(noisy, t)
            raw = net(condition, task, scaled, t.expand(2))
            noisy = oracle.step(raw, t, noisy).prev_sample
    torch.testing.assert_close(ours, noisy.clamp(-1, 1) * mask, rtol=1e-4, atol=1e-4)


def test_preconditioning_by_hand() -> None:
    skip, out, into, level = preconditioning(torch.tensor([0.5, 20.0]), 0.5)
    # at sigma = sigma_data: 1/2, 0.25 / sqrt(0.5), 1 / sqrt(0.5), ln(0.5) / 4
    np.testing.assert_allclose(
        [v[0] for v in (skip, out, into, level)], [0.5, 0.353553, 1.414214, -0.173287], rtol=1e-5
    )
    # at sigma = 20: 0.25 / 400.25, 10 / sqrt(400.25), 1 / sqrt(400.25), ln(20) / 4
    np.testing.assert_allclose(
        [v[1] for v in (skip, out, into, level)], [6.2461e-4, 0.499844, 0.0499844, 0.748933], rtol=1e-4
    )


def test_many_steps_reach_the_closed_form_of_gaussian_data() -> None:
    # With F = 0 the denoiser is exact for data N(0, sigma_data^2), whose flow from sigma_max to 0 scales
    # noise by sigma_max sigma_data / sqrt(sigma_max^2 + sigma_data^2).
    states, task = torch.zeros(1, 1, 3), torch.tensor([0])
    noise = 0.5 * torch.randn(1, 4, 2, generator=torch.Generator().manual_seed(2))
    reached = sample(Denoiser(network(), LEVELS), view(network(), states, task), noise, 2000)
    factor = 20.0 * 0.5 / (20.0**2 + 0.5**2) ** 0.5
    torch.testing.assert_close(reached, noise * factor, rtol=0, atol=2e-3)


def test_one_step_is_the_denoiser_at_the_largest_sigma() -> None:
    net = perturbed_network()
    states, task, noise = torch.randn(1, 1, 3), torch.tensor([0]), torch.randn(1, 4, 2)
    direct = Denoiser(net, LEVELS)(net.condition(states, task), task, 20.0 * noise, torch.tensor([20.0]))
    torch.testing.assert_close(
        sample(Denoiser(net, LEVELS), view(net, states, task), noise, 1),
        direct.clamp(-1, 1).detach(),
        rtol=1e-4,
        atol=1e-5,
    )


def test_padded_action_dimensions_stay_zero_and_are_not_read() -> None:
    net = perturbed_network()
    states, task = torch.randn(1, 1, 3), torch.tensor([1])
    noise = torch.randn(1, 4, 2)
    chunk = sample(Denoiser(net, LEVELS), view(net, states, task), noise, 5)
    assert (chunk[..., 1] == 0).all()
    other = noise.clone()
    other[..., 1] += 100.0
    torch.testing.assert_close(
        sample(Denoiser(net, LEVELS), view(net, states, task), other, 5), chunk, rtol=0, atol=0
    )


def test_padded_state_entries_are_not_read() -> None:
    net = perturbed_network()
    task, noise = torch.tensor([1]), torch.randn(1, 4, 2)
    states = torch.randn(1, 1, 3)
    other = states.clone()
    other[..., 2] = 50.0
    first, second = (sample(Denoiser(net, LEVELS), view(net, s, task), noise, 3) for s in (states, other))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_grid_descends_to_zero(steps: int) -> None:
    grid = sigma_grid(LEVELS, steps)
    assert len(grid) == steps + 1 and grid[-1] == 0 and (grid[:-1] > grid[1:]).all()
    assert grid[0] == pytest.approx(20.0)


def test_a_plan_begins_around_the_one_before_at_a_lower_noise_level() -> None:
    net = perturbed_network().eval().requires_grad_(False)
    denoiser, draws = Denoiser(net, LEVELS), torch.Generator().manual_seed(4)
    states, task = torch.randn(2, 1, 3, generator=draws), torch.tensor([0, 1])
    before, noise = (torch.randn(2, 4, 2, generator=draws) for _ in range(2))
    plain, grid, mask = view(net, states, task), sigma_grid(LEVELS, 10), net.chunk_mask(task)
    # 0.45, 0.18, 0.07 and 0.02 are the levels below 0.5
    noisy = (before + grid[6] * noise) * mask
    for sigma, smaller in itertools.pairwise(grid[6:]):
        clean = denoiser(plain.condition, task, noisy, sigma.expand(2))
        noisy = noisy + (smaller - sigma) * (noisy - clean) / sigma
    found = sample(denoiser, replace(plain, begin=before, warm=0.5), noise, 10)
    torch.testing.assert_close(found, noisy.clamp(-1, 1))
    # below the smallest level one step is left
    last = denoiser(plain.condition, task, (before + grid[9] * noise) * mask, grid[9].expand(2))
    found = sample(denoiser, replace(plain, begin=before, warm=1e-6), noise, 10)
    torch.testing.assert_close(found, last.clamp(-1, 1))
