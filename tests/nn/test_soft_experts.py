"""The soft mixture of experts against its formula, and inside the picture encoder."""

import pytest
import torch

from mtrl.errors import OutOfRangeError
from mtrl.gradients.jacobian import TaskJacobian
from mtrl.nn import PixelEncoder, PixelEncoderConfig, SoftExperts

EXACT = {"rtol": 0.0, "atol": 1e-10}


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_published_formula_picture_by_picture() -> None:
    mixture = SoftExperts(5, 3, experts=2, hidden=4, generator=torch.Generator().manual_seed(0)).double()
    assert mixture.slots == 3
    tokens = noise(2, 4, 5, 3)
    found = mixture(tokens)
    for task in range(2):
        for sample in range(4):
            x = tokens[task, sample]
            logits = x @ mixture.route.weight
            slots = logits.softmax(0).T @ x
            done = []
            for slot in range(6):
                first, second = mixture.expert.linears
                expert = slot // 3
                inner = (slots[slot] @ first.weight[expert] + first.bias[expert]).relu()
                done.append(inner @ second.weight[expert] + second.bias[expert])
            expected = logits.softmax(1) @ torch.stack(done)
            torch.testing.assert_close(found[task, sample], expected, **EXACT)


def test_one_token_is_a_dense_mixture_of_experts() -> None:
    """Its dispatch weights are 1: what the experts torso does for states."""
    mixture = SoftExperts(1, 3, experts=4, hidden=4, generator=torch.Generator().manual_seed(0)).double()
    tokens = noise(1, 2, 1, 3)
    gates = (tokens @ mixture.route.weight).softmax(-1)
    each = mixture.expert(tokens[:, :, 0].expand(4, 1, 2, 3))
    expected = torch.einsum("kbne,ekbd->kbnd", gates, each)
    torch.testing.assert_close(mixture(tokens), expected, **EXACT)


def test_the_encoder_with_experts_keeps_pictures_apart_and_gives_exact_task_gradients() -> None:
    config = PixelEncoderConfig(features=6, experts=3, expert_hidden=8)
    encoder = PixelEncoder(config, (2, 44, 44), torch.Generator().manual_seed(0)).double()
    source = torch.Generator().manual_seed(1)
    pictures = torch.randint(0, 256, (3, 2, 2, 44, 44), generator=source, dtype=torch.uint8)
    found = encoder(pictures)
    assert found.shape == (3, 2, 6) and found.abs().max() <= 1
    torch.testing.assert_close(encoder(pictures[1:2, 1:])[0, 0], found[1, 1], **EXACT)
    losses = found.square().sum(dim=(1, 2)) + found[..., 0].sum(dim=1)
    jacobian = TaskJacobian(encoder)
    rows = jacobian.rows(losses, retain_graph=True)
    assert jacobian.slow == ()
    named = dict(encoder.named_parameters())
    for task in range(3):
        combined = rows.combine(*[torch.eye(3, dtype=torch.float64)[task]] * 2)
        naive = torch.autograd.grad(losses[task], list(named.values()), retain_graph=True)
        for name, expected in zip(named, naive, strict=True):
            torch.testing.assert_close(combined[name], expected, rtol=0.0, atol=1e-9)


def test_half_precision_is_finite_and_gradients_reach_every_weight() -> None:
    config = PixelEncoderConfig(features=6, experts=2, expert_hidden=8)
    encoder = PixelEncoder(config, (1, 40, 40), torch.Generator().manual_seed(0))
    pictures = torch.randint(0, 256, (1, 3, 1, 40, 40), dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        loss = (encoder(pictures).float() - 1.0).square().sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in encoder.parameters())


@pytest.mark.parametrize("settings", [{"experts": -1}, {"experts": 65}, {"expert_hidden": 0}])
def test_sizes_out_of_range_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(OutOfRangeError, match=next(iter(settings))):
        PixelEncoderConfig(**settings)
