"""What ranks do in test_ranks: every method on samples of their own, and one process with all samples."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from mtrl import registry
from mtrl.errors import DivergenceError
from mtrl.gradients import GradientSurgery, SurgeryConfig
from mtrl.reducer import ALONE, Reducer

from ..ranks import main

TASKS, SAMPLES, WIDTH, UPDATES = 4, 6, 5, 5

CONFIGS = {
    **{name: SurgeryConfig(name, row_method="backward") for name in registry.names("weighting")},
    "dwa of short periods": SurgeryConfig("dwa", {"period": 1}),
    "held": SurgeryConfig("mgda", row_method="backward", every=2, smoothing=0.5),
    "held famo": SurgeryConfig("famo", every=2),
    "owned weighed": SurgeryConfig("pcgrad", row_method="backward", weigh_owned=True),
    "loop": SurgeryConfig("pcgrad", row_method="loop"),
    "measured": SurgeryConfig("cagrad"),
    "perturbed": SurgeryConfig("pcgrad", perturbation=0.05),
    "sparse": SurgeryConfig("pcgrad", row_method="backward", trained_share=0.5),
    "sparse sum": SurgeryConfig("sum", trained_share=0.5),
    # rows of all parameters take 3.5 kB in float64, and those of the largest 1.1 kB
    "streamed": SurgeryConfig("mgda", memory_mb=1.3 / 1024),
}


class Net(nn.Module):
    """A torso that tasks share, a table of which each owns a row, a head each."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64) * 0.4)

        self.enter, self.bias, self.inner = drawn(WIDTH + 2, 7), drawn(7), drawn(7, 5)
        self.table, self.heads = drawn(TASKS, 2), drawn(TASKS, 5, 1)

    def losses(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """[K] of [K, B, WIDTH] and [K, B]."""
        return torch.stack([self.loss(k, inputs, targets) for k in range(TASKS)])

    def joint(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The same in one pass."""
        embedded = self.table[torch.arange(TASKS)][:, None].expand(-1, inputs.shape[1], -1)
        hidden = (torch.cat([inputs, embedded], 2) @ self.enter + self.bias).tanh()
        found = torch.bmm((hidden @ self.inner).tanh(), self.heads).squeeze(-1)
        return (found - targets).square().mean(1)

    def loss(self, k: int, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Of one task's samples."""
        embedded = self.table[k].expand(inputs.shape[1], -1)
        hidden = (torch.cat([inputs[k], embedded], 1) @ self.enter + self.bias).tanh()
        found = (hidden @ self.inner).tanh() @ self.heads[k]
        return (found.squeeze(-1) - targets[k]).square().mean()


def batch(rank: int, update: int, kind: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 * update + rank)
    inputs = torch.randn(TASKS, SAMPLES, WIDTH, generator=generator, dtype=torch.float64)
    targets = torch.randn(TASKS, SAMPLES, generator=generator, dtype=torch.float64)
    return (inputs + 0.3 * rank).to(kind), (targets * (1 + rank)).to(kind)


def train(
    config: SurgeryConfig,
    kind: torch.dtype,
    reducer: Reducer,
    batch_of: Callable[[int], tuple[torch.Tensor, torch.Tensor]],
    portion: torch.Tensor | None = None,
    updates: int = UPDATES,
) -> tuple[Net, dict[str, torch.Tensor], GradientSurgery]:
    """The network after a few steps of gradient descent, the first gradient, and the surgery."""
    net = Net().to(kind)
    surgery = GradientSurgery(net, config, TASKS, seed=3)
    first: dict[str, torch.Tensor] = {}
    for update in range(updates):
        data = batch_of(update)

        def losses(data: tuple[torch.Tensor, torch.Tensor] = data) -> torch.Tensor:
            return net.joint(*data)

        def loss_of(k: int, data: tuple[torch.Tensor, torch.Tensor] = data) -> torch.Tensor:
            return net.loss(k, *data)

        combined = surgery.step(losses, loss_of, reducer=reducer, portion=portion)
        first = first or {name: value.clone() for name, value in combined.gradients.items()}
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                parameter -= 0.05 * combined.gradients[name]
            if surgery.needs_post_step:
                surgery.observe_post_step_losses(losses, reducer=reducer, portion=portion)
    return net, first, surgery


def flat(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensors[name].detach().double().flatten() for name in sorted(tensors)])


def digest(net: nn.Module) -> str:
    return hashlib.sha256(flat(dict(net.named_parameters())).numpy().tobytes()).hexdigest()


def methods(reducer: Reducer) -> Mapping[str, Any]:
    """Method -> how far from one process, and a digest of the weights."""
    facts = {}
    for name, config in CONFIGS.items():
        entry: dict[str, Any] = {}
        for kind in (torch.float32, torch.float64):

            def own(update: int, kind: torch.dtype = kind) -> tuple[torch.Tensor, torch.Tensor]:
                return batch(reducer.rank, update, kind)

            def union(update: int, kind: torch.dtype = kind) -> tuple[torch.Tensor, torch.Tensor]:
                parts = [batch(rank, update, kind) for rank in range(reducer.size)]
                return torch.cat([p[0] for p in parts], 1), torch.cat([p[1] for p in parts], 1)

            net, first, surgery = train(config, kind, reducer, own)
            alone, expected, _ = train(config, kind, ALONE, union)
            one, other = flat(first), flat(expected)
            weights, reference = flat(dict(net.named_parameters())), flat(dict(alone.named_parameters()))
            entry[str(kind)] = {
                "gradient": float((one - other).norm() / other.norm()),
                "weights": float((weights - reference).abs().max()),
                "digest": digest(net),
                "moved": float((reference - flat(dict(Net().named_parameters()))).abs().max()),
                "streamed": surgery.streamed,
                "choice": [surgery.choice.chosen, surgery.choice.seconds["loop"]],
            }
        facts[name] = entry
    return facts | {"portions": portions(reducer), "failures": failures(reducer)}


def portions(reducer: Reducer) -> Mapping[str, Any]:
    """Rank 1 has nothing of task 0, and a third of the samples of the others."""
    counts = torch.tensor([[6, 4, 4, 4], [0, 2, 2, 2]])[:, :, None].expand(-1, -1, SAMPLES)
    keep = torch.arange(SAMPLES) < counts

    def own(update: int) -> tuple[torch.Tensor, torch.Tensor]:
        # samples that do not count repeat the first, so that means are those of the samples that do
        inputs, targets = batch(0, update, torch.float64)
        index = torch.arange(SAMPLES).expand(TASKS, -1)
        width = int(counts[reducer.rank].max())
        offset = counts[0] * reducer.rank
        index = (index[:, :width] + offset[:, :width]).clamp_max(SAMPLES - 1)
        return inputs.gather(1, index[..., None].expand(-1, -1, WIDTH)), targets.gather(1, index)

    facts = {}
    for name in ("pcgrad", "famo", "uncertainty"):
        portion = keep.sum(2)[reducer.rank].double() / SAMPLES
        net, _, _ = train(
            CONFIGS[name], torch.float64, reducer, padded(own, counts[reducer.rank, :, 0]), portion
        )
        alone, _, _ = train(
            CONFIGS[name], torch.float64, ALONE, lambda update: batch(0, update, torch.float64)
        )
        difference = flat(dict(net.named_parameters())) - flat(dict(alone.named_parameters()))
        facts[name] = float(difference.abs().max())
    return facts


def padded(
    own: Callable[[int], tuple[torch.Tensor, torch.Tensor]], counts: torch.Tensor
) -> Callable[[int], tuple[torch.Tensor, torch.Tensor]]:
    """Tasks have unequal counts here: each is repeated to a common width, which keeps its mean."""

    def repeated(update: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, targets = own(update)
        index = torch.stack([torch.arange(12) % max(1, int(count)) for count in counts])
        return inputs.gather(1, index[..., None].expand(-1, -1, WIDTH)), targets.gather(1, index)

    return repeated


def failures(reducer: Reducer) -> Mapping[str, Any]:
    """What all ranks raise where rank 1 meets what is not finite, or not allowed."""
    facts = {}
    for name, spoil in {
        "pcgrad": float("nan"), "loop": float("nan"), "famo": float("inf"), "perturbed": float("nan"),
        "streamed": float("nan"), "dwa": float("nan"),
    }.items():  # fmt: skip

        def own(update: int, spoil: float = spoil) -> tuple[torch.Tensor, torch.Tensor]:
            inputs, targets = batch(reducer.rank, update, torch.float64)
            if reducer.rank == 1 and update == 1:
                targets[2, 0] = spoil
            return inputs, targets

        try:
            train(CONFIGS[name], torch.float64, reducer, own)
        except DivergenceError as error:
            facts[name] = str(error)
    facts["too large"] = refused_block(reducer)
    facts["within a stream"] = fails_in_a_stream(reducer)
    return facts | {"still": reducer.agree(1.0, "sum")}


def refused_block(reducer: Reducer) -> str:
    try:
        train(
            SurgeryConfig("mgda", memory_mb=1e-6), torch.float64, reducer,
            lambda update: batch(reducer.rank, update, torch.float64),
        )  # fmt: skip
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    return ""


def fails_in_a_stream(reducer: Reducer) -> str:
    """Rank 1 fails in the middle of the backward pass."""

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
            return value.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            if reducer.rank == 1 and armed:
                raise ArithmeticError("no more memory")
            return gradient

    net = Net()
    surgery = GradientSurgery(net, CONFIGS["streamed"], TASKS)
    armed: list[int] = []
    inputs, targets = batch(reducer.rank, 0, torch.float64)
    try:
        for _ in range(2):
            embedded = net.table[torch.arange(TASKS)][:, None].expand(-1, SAMPLES, -1)
            hidden = Broken.apply((torch.cat([inputs, embedded], 2) @ net.enter + net.bias).tanh())
            found = torch.bmm((hidden @ net.inner).tanh(), net.heads).squeeze(-1)
            surgery.step((found - targets).square().mean(1), reducer=reducer)
            armed.append(1)
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    main({"methods": methods}, timeout=20.0)
