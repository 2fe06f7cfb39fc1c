"""Networks that hold everything whose gradients are taken per task, each with losses [3] in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

TASKS = 3
SAMPLES = 4
WIDTH = 5

Losses = Callable[[], torch.Tensor]
Case = tuple[nn.Module, Losses]


def random(*shape: int, seed: int = 7) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parameter(*shape: int, seed: int = 3) -> nn.Parameter:
    return nn.Parameter(random(*shape, seed=seed))


INPUTS = random(TASKS, SAMPLES, WIDTH)
SEQUENCES = random(TASKS * SAMPLES, 6, 8)


def mean(values: torch.Tensor) -> torch.Tensor:
    """Mean squares of task-major values, [3]."""
    return values.reshape(TASKS, -1).square().mean(1)


def mlp() -> Case:
    net = nn.Sequential(
        nn.Linear(WIDTH, 7),
        nn.LayerNorm(7),
        nn.ReLU(),
        nn.Linear(7, 6, bias=False),
        nn.Tanh(),
        nn.Linear(6, 2),
    ).double()
    return net, lambda: mean(net(INPUTS))


def flattened() -> Case:
    net, _ = mlp()
    return net, lambda: mean(net(INPUTS.flatten(0, 1)))


def time_major() -> Case:
    net, _ = mlp()
    steps = random(6, TASKS, SAMPLES, WIDTH)
    return net, lambda: net(steps).square().mean((0, 2, 3))


def wide() -> Case:
    """Rows beyond a huge page, and of more columns than are multiplied at a time."""
    net = nn.Sequential(nn.Linear(WIDTH, 300), nn.Tanh(), nn.Linear(300, 300), nn.Tanh(), nn.Linear(300, 2))
    return net.double(), lambda: mean(net(INPUTS))


class Scaled(nn.Module):
    """Products with factors, once and twice of one weight, weights transposed once and twice, and an offset
    of every sample.
    """

    def __init__(self) -> None:
        super().__init__()
        self.offset = parameter(TASKS * SAMPLES, 7)
        self.weight, self.bias = parameter(7, WIDTH), parameter(7)
        self.transposed = parameter(7, 6)
        self.members, self.member_bias = parameter(2, 6, 4), parameter(2, 1, 4)
        self.heads, self.head_bias = parameter(TASKS, 4, 2), parameter(TASKS, 1, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        flat = inputs.flatten(0, 1)
        hidden = torch.addmm(self.bias, flat, self.weight.t(), beta=0.5, alpha=2.0).tanh() + self.offset
        hidden = (hidden @ self.transposed.t().t()).tanh()
        wide = hidden.expand(2, -1, -1)
        both = torch.baddbmm(self.member_bias, wide, self.members, beta=3.0, alpha=0.5)
        both = both + torch.baddbmm(self.member_bias, wide.square(), self.members, alpha=0.25)
        mixed = both.tanh().sum(0).view(TASKS, SAMPLES, -1)
        return torch.baddbmm(self.head_bias, mixed, self.heads, beta=2.0, alpha=0.25)


def scaled() -> Case:
    net = Scaled()
    return net, lambda: mean(net(INPUTS))


class TwinCritic(nn.Module):
    """Two members with a head per task each, as batched products."""

    def __init__(self, members: int) -> None:
        super().__init__()
        self.members = members
        self.weight = parameter(members, WIDTH, 7)
        self.bias = parameter(members, 1, 7)
        self.norm = nn.LayerNorm(7).double()
        self.heads = parameter(members * TASKS, 7, 3)
        self.head_bias = parameter(members * TASKS, 1, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        flat = inputs.reshape(1, -1, WIDTH).expand(self.members, -1, -1)
        hidden = F.relu(self.norm(torch.baddbmm(self.bias, flat, self.weight)))
        hidden = hidden.view(self.members * TASKS, SAMPLES, 7)
        return torch.baddbmm(self.head_bias, hidden, self.heads).view(self.members, TASKS, -1)


def twins(members: int) -> Case:
    net = TwinCritic(members)
    return net, lambda: net(INPUTS).square().mean((0, 2))


class Heads(nn.Module):
    """Heads, embeddings and scales, of which a batch picks some tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.torso = nn.Linear(WIDTH + 2, 6).double()
        self.embedding = nn.Embedding(9, 2).double()
        self.heads = parameter(9, 6, 2)
        self.bias = parameter(9, 2)
        self.scale = parameter(6)
        self.log_std = parameter(2)
        self.log_temperature = parameter(9)

    def forward(self, inputs: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        task = self.embedding(index)[:, None].expand(-1, SAMPLES, -1)
        hidden = torch.tanh(self.torso(torch.cat([inputs, task], -1))) * self.scale
        out = torch.bmm(hidden, self.heads[index]) + self.bias[index][:, None]
        out = out / self.log_std.exp() + self.log_std.expand_as(out)
        return out, self.log_temperature[index]


def heads() -> Case:
    net = Heads()
    index = torch.tensor([4, 0, 7])

    def losses() -> torch.Tensor:
        out, log_temperature = net(INPUTS, index)
        return mean(out) * log_temperature.exp()

    return net, losses


def tokens() -> Case:
    """An embedding that all tasks share: rows collide between tasks and within."""
    net = nn.Sequential(nn.Embedding(5, 3, padding_idx=1), nn.Linear(3, 2)).double()
    index = torch.randint(5, (TASKS, SAMPLES, 2), generator=torch.Generator().manual_seed(1))
    return net, lambda: mean(net(index))


class Experts(nn.Module):
    """Four experts as one weight, mixed by a gate."""

    def __init__(self, by_einsum: bool) -> None:
        super().__init__()
        self.by_einsum = by_einsum
        self.first = parameter(4, WIDTH, 6)
        self.second = parameter(4, 6, 2)
        self.gate = nn.Linear(WIDTH, 4).double()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.by_einsum:
            hidden = torch.einsum("kbi,eio->ekbo", inputs, self.first).relu()
            found = torch.einsum("ekbi,eio->ekbo", hidden, self.second)
        else:
            hidden = (inputs.reshape(1, -1, WIDTH) @ self.first).relu()
            found = (hidden @ self.second).view(4, TASKS, SAMPLES, 2)
        return torch.einsum("kbe,ekbo->kbo", self.gate(inputs).softmax(-1), found)


def experts(by_einsum: bool) -> Case:
    net = Experts(by_einsum)
    return net, lambda: mean(net(INPUTS))


def convolution() -> Case:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2),
        nn.Flatten(), nn.Linear(16, 1),
    ).double()  # fmt: skip
    images = random(TASKS * SAMPLES, 3, 8, 8)
    return net, lambda: mean(net(images))


def attention(crossed: bool) -> Case:
    net = nn.MultiheadAttention(8, 2, batch_first=True).double()
    other = random(TASKS * SAMPLES, 4, 8, seed=9) if crossed else SEQUENCES
    return net, lambda: mean(net(SEQUENCES, other, other)[0])


def transformer() -> Case:
    net = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).double()
    target = random(TASKS * SAMPLES, 6, 8, seed=5)
    return net, lambda: mean(net(SEQUENCES) - target)


def recurrent() -> Case:
    net = nn.GRU(8, 6, batch_first=True).double()
    return net, lambda: mean(net(SEQUENCES)[0])


class LoRA(nn.Module):
    """A low-rank addition to a frozen layer, on the side or merged into its weight."""

    def __init__(self, merged: bool) -> None:
        super().__init__()
        self.merged = merged
        self.base = nn.Linear(WIDTH, 6).double().requires_grad_(False)
        self.down = parameter(2, WIDTH)
        self.up = parameter(6, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.merged:
            return F.linear(inputs, self.base.weight + 2.0 * (self.up @ self.down), self.base.bias)
        return self.base(inputs) + 2.0 * F.linear(F.linear(inputs, self.down), self.up)


def lora(merged: bool) -> Case:
    net = LoRA(merged)
    return net, lambda: mean(net(INPUTS))


def rolled() -> Case:
    """One layer used three times in a row."""
    net = nn.Linear(WIDTH, WIDTH).double()

    def losses() -> torch.Tensor:
        state = INPUTS
        for _ in range(3):
            state = torch.tanh(net(state)) + state
        return mean(state)

    return net, losses


def called_twice() -> Case:
    net, _ = mlp()
    return net, lambda: mean(net(INPUTS) * net(INPUTS + 1))


class Composed(nn.Module):
    """Weights of each task as a combination of shared ones (PaCo)."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = parameter(5, WIDTH, 6)
        self.mixture = parameter(TASKS, 5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.bmm(inputs, torch.einsum("kp,pio->kio", self.mixture, self.shared)).tanh()


def composed() -> Case:
    net = Composed()
    return net, lambda: mean(net(INPUTS))


def reparametrised() -> Case:
    net = nn.Sequential(
        nn.Linear(WIDTH, 6), nn.RMSNorm(6), nn.SiLU(), nn.utils.parametrizations.weight_norm(nn.Linear(6, 2))
    ).double()
    return net, lambda: mean(net(INPUTS))


def penalised() -> Case:
    """A term that no task's samples enter, in every loss."""
    net = nn.Sequential(nn.Linear(WIDTH, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    first = net[0]
    assert isinstance(first, nn.Linear)
    return net, lambda: mean(net(INPUTS)) + 0.1 * first.weight.square().sum()


def unknown() -> Case:
    """An operation without a rule: its parameter is slow, exact all the same."""
    net = nn.Sequential(nn.Linear(WIDTH, 6), nn.PReLU(6), nn.Linear(6, 1)).double()
    return net, lambda: mean(net(INPUTS.flatten(0, 1)))


class Broadcast(nn.Module):
    """Parameters smaller than what they meet, in flat batches, two of them in one sum; one normalised; one of
    which a use has no rule.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = parameter(WIDTH, 6), parameter(6)
        self.scale, self.shift, self.number = parameter(1), parameter(1, seed=4), parameter()
        self.first, self.second = parameter(TASKS, 6), parameter(TASKS, 6, seed=5)
        self.table, self.norm = parameter(TASKS, 6, seed=6), nn.LayerNorm(6).double()
        self.token = parameter(1, 6, seed=8)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        flat = F.prelu(torch.addmm(self.bias, inputs.flatten(0, 1), self.weight), self.bias)
        flat = (flat * self.scale + self.shift) * self.number + torch.sigmoid(self.scale) - self.shift / 2.0
        found = flat.view(TASKS, SAMPLES, 6).mean(1) + self.first + self.second
        found = (found * self.norm(self.table)).tanh()
        return torch.cat([found, self.token.expand(TASKS, -1)], 1)


def broadcast() -> Case:
    net = Broadcast()
    return net, lambda: mean(net(INPUTS))


def square() -> Case:
    """As many samples as inputs before a layer without bias: data of the shape of a mask."""
    inputs = random(TASKS * SAMPLES, TASKS * SAMPLES)
    net = nn.Sequential(nn.Linear(TASKS * SAMPLES, 6, bias=False), nn.Tanh(), nn.Linear(6, 2, bias=False))
    return net.double(), lambda: mean(net(inputs))


def instance_norm(affine: bool) -> Case:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=affine), nn.ReLU(), nn.Flatten(), nn.Linear(16, 1)
    ).double()
    images = random(TASKS * SAMPLES, 3, 4, 4)
    return net, lambda: mean(net(images))


def fixed_batch_norm() -> Case:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 1)).double()
    net(random(5, 3, 4, 4, seed=1))
    net.eval()
    images = random(TASKS * SAMPLES, 3, 4, 4)
    return net, lambda: mean(net(images))


CASES: dict[str, Callable[[], Case]] = {
    "as many samples as inputs": square,
    "instance norm": partial(instance_norm, False),
    "instance norm with weights": partial(instance_norm, True),
    "batch norm of fixed statistics": fixed_batch_norm,
    "mlp": mlp,
    "wide layers": wide,
    "factors": scaled,
    "broadcast": broadcast,
    "flattened": flattened,
    "time major": time_major,
    "twin critic": partial(twins, 2),
    "as many members as tasks": partial(twins, TASKS),
    "picked heads": heads,
    "tokens": tokens,
    "experts by einsum": partial(experts, True),
    "experts by matmul": partial(experts, False),
    "convolution": convolution,
    "self-attention": partial(attention, False),
    "cross-attention": partial(attention, True),
    "transformer": transformer,
    "recurrent": recurrent,
    "lora": partial(lora, False),
    "merged lora": partial(lora, True),
    "three-step roll": rolled,
    "twin calls": called_twice,
    "composed weights": composed,
    "weight norm and rms norm": reparametrised,
    "penalty": penalised,
    "operation without a rule": unknown,
}
