"""Networks of mtrl.nn on every device that is here, and in bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mtrl import registry
from mtrl.gradients import GradientSurgery, SurgeryConfig, TaskJacobian
from mtrl.nn import TaskNetwork, TorsoConfig

TASKS, SAMPLES, INPUTS = 3, 16, 9

# The same tests on the GPU where there is one: nothing to skip, nothing to install.
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def critic(device: str, members: int | None) -> tuple[nn.Module, torch.Tensor]:
    config = TorsoConfig(width=32, depth=2, layer_norm=True, norm_affine=False)
    generator = torch.Generator().manual_seed(0)
    # A head of the usual, tiny start would leave nothing but rounding in the torso's gradients.
    made = TaskNetwork(config, INPUTS, {"value": 5}, TASKS, members, generator)
    with torch.no_grad():
        for layer in made.outputs.parameters():
            layer.copy_(0.3 * torch.randn(layer.shape, generator=generator))
    inputs = torch.randn(TASKS, SAMPLES, INPUTS, generator=generator)
    return made.to(device), inputs.to(device)


def losses_of(net: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    index = torch.arange(TASKS, device=inputs.device)
    out = net(inputs, index)["value"].float()
    return (out - 1).square().mean(tuple(axis for axis in range(out.dim()) if axis != out.dim() - 3))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("members", [None, 2])
@pytest.mark.parametrize("inside", [False, True])
def test_rows_under_bfloat16_are_those_of_autograd(device: str, members: int | None, inside: bool) -> None:
    """`inside`: the rows are asked for within the autocast, as a learner may."""
    net, inputs = critic(device, members)
    jacobian = TaskJacobian(net)
    with torch.autocast(device, dtype=torch.bfloat16):
        losses = losses_of(net, inputs)
        if inside:
            rows = jacobian.rows(losses, retain_graph=True)
            gramian = rows.gramian()
    if not inside:
        rows = jacobian.rows(losses, retain_graph=True)
        gramian = rows.gramian()
    assert rows.owned and rows.shared and not jacobian.slow
    found = {**rows.shared, **{name: own.dense(TASKS) for name, own in rows.owned.items()}}
    for task in range(TASKS):
        expected = torch.autograd.grad(
            losses[task], list(net.parameters()), retain_graph=True, allow_unused=True
        )
        for (name, parameter), gradient in zip(net.named_parameters(), expected, strict=True):
            expected = torch.zeros_like(parameter) if gradient is None else gradient
            assert found[name].dtype == torch.float32 and found[name].device == parameter.device
            # bfloat16 keeps 8 bits; the two ways round at different places
            scale = max(float(expected.abs().max()), 1e-3)
            assert float((found[name][task] - expected).abs().max()) <= 0.02 * scale, name
    flat = torch.cat([values.flatten(1) for values in rows.shared.values()], dim=1).double()
    assert torch.allclose(gramian, (flat @ flat.T).cpu(), rtol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", registry.names("weighting"))
def test_every_method_steps_where_the_parameters_are(device: str, method: str) -> None:
    net, inputs = critic(device, 2)
    surgery = GradientSurgery(net, SurgeryConfig(method, smoothing=0.5, trained_share=0.9), TASKS)
    for _ in range(2):
        combined = surgery.step(lambda: losses_of(net, inputs))
        surgery.assign(combined.gradients)
        surgery.observe_post_step_losses(losses_of(net, inputs))
    for parameter in net.parameters():
        assert parameter.grad is not None and parameter.grad.device == parameter.device
        assert bool(torch.isfinite(parameter.grad).all())


@pytest.mark.parametrize("device", DEVICES)
def test_streaming_and_perturbation_step_where_the_parameters_are(device: str) -> None:
    net, inputs = critic(device, None)
    index = torch.arange(TASKS, device=device)

    def loss_of(task: int) -> torch.Tensor:
        out = net(inputs[task : task + 1], index[task : task + 1])["value"]
        return (out - 1).square().mean()

    for config in (
        SurgeryConfig("mgda", memory_mb=1e-6),
        SurgeryConfig("mgda", perturbation=0.01),
        SurgeryConfig("mgda", row_method="loop"),
    ):
        surgery = GradientSurgery(net, config, TASKS)
        combined = surgery.step(lambda: losses_of(net, inputs), loss_of)
        assert combined.weights.sum().item() == pytest.approx(1)
        assert all(value.device.type == device for value in combined.gradients.values())
