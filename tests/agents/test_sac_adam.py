"""The optimiser of SAC moves as PyTorch's, and takes over its state."""

import copy

import torch

from mtrl.agents.sac.adam import VectorAdam


def groups(vectors: list[torch.nn.Parameter]) -> list[dict[str, object]]:
    return [{"params": vectors[:2]}, {"params": vectors[2:], "lr": 0.02}]


def test_ten_steps_are_pytorchs_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in (40, 7, 3)]
    theirs = copy.deepcopy(ours)
    fast = VectorAdam(groups(ours), lr=0.01, eps=1e-5)
    slow = torch.optim.Adam(groups(theirs), lr=0.01, eps=1e-5, fused=True)
    for step in range(10):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator)
            other.grad = mine.grad.clone()
        if step in (3, 4):
            # the last group sits these out
            ours[2].grad = theirs[2].grad = None
        if step == 6:
            state = copy.deepcopy(slow.state_dict())
            fast.load_state_dict(state)
        fast.advance()
        slow.step()
        for mine, other in zip(ours, theirs, strict=True):
            assert torch.equal(mine, other)
    assert float(fast.state[ours[0]]["step"]) == 10
    assert float(fast.state[ours[2]]["step"]) == 8
