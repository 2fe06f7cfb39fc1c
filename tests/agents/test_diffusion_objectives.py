"""The objectives of the diffusion agent: losses by hand, plans, and first steps that students begin with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mtrl.agents.diffusion import DiffusionConfig, DiffusionSampler
from mtrl.agents.diffusion.config import NoiseLevels
from mtrl.agents.diffusion.edm import denoising_loss
from mtrl.agents.diffusion.objectives import objective_of
from mtrl.agents.diffusion.view import View
from mtrl.nn import ChunkNetwork, ChunkShape
from mtrl.rollout import BlendingSampler, Execution

from .demonstrations import choice_tasks

OBJECTIVES = ("diffusion", "flow", "mip", "regression")
CHUNK = torch.tensor([[[0.6, 0.0], [0.2, 0.0]]])
NOISE = torch.tensor([[[1.0, 9.0], [-1.0, 9.0]]])
STATES, TASK, REAL = torch.zeros(1, 1, 3), torch.tensor([0]), torch.tensor([[1.0, 1.0]])


def network(perturbed: bool = False) -> ChunkNetwork:
    """Untrained, F = 0; or with weights that are not 0."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = ChunkNetwork(ChunkShape(width=16, blocks=1, chunk=2, embedding=2), choice_tasks().layout)
        if perturbed:
            for parameter in made.parameters():
                parameter.data += 0.2 * torch.randn_like(parameter)
    return made.requires_grad_(False)


def config(objective: str, steps: int = 10) -> DiffusionConfig:
    shape = ChunkShape(width=16, blocks=1, chunk=2, embedding=2)
    return DiffusionConfig(objective, shape, sampler_steps=steps, execution=Execution(steps=1))


def test_denoising_loss_by_hand() -> None:
    # F = 0 at the start, so the loss is the mean square of (clean - c_skip noisy) / c_out.
    loss = denoising_loss(
        network(), NoiseLevels(), STATES, TASK, CHUNK, REAL, sigma=torch.tensor([0.5]), noise=NOISE
    )
    # noisy = 1.1, -0.3; c_skip = 1/2; c_out = 0.353553; targets 0.05 / 0.353553 and 0.35 / 0.353553
    assert loss.item() == pytest.approx(((0.05 / 0.353553) ** 2 + (0.35 / 0.353553) ** 2) / 2, rel=1e-4)


@pytest.mark.parametrize(
    ("objective", "drawn", "expected"),
    [
        # velocities 0.6 - 1 and 0.2 + 1
        ("flow", {"time": torch.tensor([0.3]), "noise": NOISE}, (0.4**2 + 1.2**2) / 2),
        # both passes miss by 0.6 and 0.2
        ("mip", {"noise": NOISE}, (0.6**2 + 0.2**2) / 2 * (1 / 0.81 + 1 / 0.01)),
        ("regression", {}, (0.6**2 + 0.2**2) / 2),
    ],
)
def test_losses_of_a_network_that_says_0_by_hand(
    objective: str, drawn: dict[str, torch.Tensor], expected: float
) -> None:
    made = objective_of(config(objective), network())
    assert made.losses(STATES, TASK, CHUNK, REAL, **drawn).item() == pytest.approx(expected, rel=1e-5)
    # the second action lies past the end of its demonstration
    past = made.losses(STATES, TASK, CHUNK, torch.tensor([[1.0, 0.0]]), **drawn).item()
    wrong = CHUNK + torch.tensor([[[0.0, 0.0], [5.0, 0.0]]])
    assert made.losses(STATES, TASK, wrong, torch.tensor([[1.0, 0.0]]), **drawn).item() == past != expected


def test_what_the_network_sees_of_a_flow_and_of_two_passes() -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Seen(ChunkNetwork):
        def forward(
            self, condition: torch.Tensor, task: torch.Tensor, chunk: torch.Tensor, level: torch.Tensor
        ) -> torch.Tensor:
            seen.append((chunk, level))
            return torch.full_like(chunk, 0.25) * self.chunk_mask(task)

    made = Seen(ChunkShape(width=16, blocks=1, chunk=2, embedding=2), choice_tasks().layout)
    objective_of(config("flow"), made).losses(
        STATES, TASK, CHUNK, REAL, time=torch.tensor([0.25]), noise=NOISE
    )
    objective_of(config("mip"), made).losses(STATES, TASK, CHUNK, REAL, noise=NOISE)
    between, first, second = seen
    torch.testing.assert_close(between[0][0, :, 0], torch.tensor([0.9, -0.7]))
    assert between[1].item() == 0.25
    assert not first[0].any() and first[1].item() == 0.0
    torch.testing.assert_close(second[0][0, :, 0], torch.tensor([0.7, 0.1]))
    assert second[1].item() == pytest.approx(0.9)
    seen.clear()
    view = View(made.condition(STATES, TASK), TASK)
    # a constant velocity of 0.25 from z = -0.5, 0 arrives after any number of steps alike
    plan = objective_of(config("flow", steps=4), made).plan(view, torch.tensor([[[-0.5, 9], [0, 9]]]))
    torch.testing.assert_close(plan, torch.tensor([[[-0.25, 0.0], [0.25, 0.0]]]))
    assert [level.item() for _, level in seen] == [0.0, 0.25, 0.5, 0.75]
    seen.clear()
    objective_of(config("mip"), made).plan(view, torch.empty(0))
    assert [level.item() for _, level in seen] == [0.0, pytest.approx(0.9)]
    torch.testing.assert_close(seen[1][0], torch.full((1, 2, 2), 0.25) * torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_first_step_is_the_plan_of_one_forward_pass(objective: str) -> None:
    net, draws = network(perturbed=True), np.random.default_rng(0)
    sampler = DiffusionSampler(config(objective, steps=1), net)
    states = draws.normal(size=(3, 1, 3)).astype(np.float32)
    task, z = np.zeros(3, dtype=np.int64), draws.normal(size=(3, sampler.spec.noise_size)).astype(np.float32)
    step = sampler.first_step
    noise = torch.from_numpy(z).view(3, 2, 2) if z.size else torch.zeros(3, 2, 2)
    condition = net.condition(torch.from_numpy(states), torch.from_numpy(task))
    raw = net(condition, torch.from_numpy(task), step.scale * noise, torch.full((3,), step.level))
    expected = (step.skip * noise * net.chunk_mask(torch.from_numpy(task)) + step.gain * raw).clamp(-1, 1)
    if objective == "mip":  # the first of two
        expected = net(condition, torch.from_numpy(task), expected, torch.full((3,), 0.9)).clamp(-1, 1)
    np.testing.assert_allclose(sampler.sample(states, task, z), expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_self_guidance_goes_on_along_what_the_last_state_changed(objective: str) -> None:
    net, draws = network(perturbed=True), np.random.default_rng(1)
    states = 0.1 * draws.normal(size=(4, 2, 3)).astype(np.float32)
    task = np.zeros(4, dtype=np.int64)
    plain, guided = (
        DiffusionSampler(replace(config(objective, steps=1), guidance=w), net) for w in (0.0, 0.7)
    )
    assert (plain.spec.history, guided.spec.history) == (1, 2)
    z = 0.1 * draws.normal(size=(4, plain.spec.noise_size)).astype(np.float32)
    standing = np.repeat(states[:, 1:], 2, axis=1)
    np.testing.assert_allclose(
        guided.sample(standing, task, z), plain.sample(states[:, 1:], task, z), atol=1e-6
    )
    if objective != "mip":  # of which the second pass begins elsewhere
        now, before = (plain.sample(states[:, k : k + 1], task, z) for k in (1, 0))
        np.testing.assert_allclose(
            guided.sample(states, task, z), np.clip(now + 0.7 * (now - before), -1, 1), atol=1e-5
        )


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_bound_plan_is_what_it_is_bound_to_where_the_pull_is_1(objective: str) -> None:
    sampler, draws = DiffusionSampler(config(objective), network(perturbed=True)), np.random.default_rng(2)
    assert isinstance(sampler, BlendingSampler)
    states, task = draws.normal(size=(3, 1, 3)).astype(np.float32), np.array([0, 1, 0])
    z = draws.normal(size=(3, sampler.spec.noise_size)).astype(np.float32)
    mask = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]], dtype=np.float32)[:, None]
    ahead = draws.uniform(-1, 1, size=(3, 2, 2)).astype(np.float32) * mask
    free = sampler.sample(states, task, z)
    np.testing.assert_array_equal(sampler.blend(states, task, z, ahead, np.zeros(2, np.float32)), free)
    bound = sampler.blend(states, task, z, ahead, np.array([1.0, 0.0], dtype=np.float32))
    np.testing.assert_allclose(bound[:, 0], ahead[:, 0], atol=1e-5)
    assert (bound[..., 1][task == 0] == 0).all()
