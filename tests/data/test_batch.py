"""Unequal shares of tasks in one batch, worked out by hand."""

from __future__ import annotations

import pytest
import torch

from mtrl.data.batch import Batch, Bucket
from mtrl.errors import SpaceError

NAN = float("nan")


def batch() -> Batch:
    """Three tasks (indices 4, 0, 7) with 3, 1 and 0 samples; 4 and 7 have states, 0 has pixels."""
    return Batch(
        task_index=torch.tensor([4, 0, 7]),
        weight=torch.tensor([[1.0, 1.0, 2.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
        buckets={
            "state": Bucket(values=torch.zeros(2, 3, 5), rows=torch.tensor([0, 2])),
            "pixels": Bucket(values=torch.zeros(1, 3, 4, 8, 8, dtype=torch.uint8), rows=torch.tensor([1])),
        },
        fields={"reward": torch.zeros(3, 3), "continuous": torch.zeros(3, 3, 2)},
    )


def test_the_loss_of_a_task_is_its_weighted_mean() -> None:
    losses = torch.tensor([[1.0, 2.0, 5.0], [3.0, 100.0, 100.0], [7.0, 7.0, 7.0]])
    # by hand: 1 * 1 + 1 * 2 + 2 * 5 over a weight of 4; 3 over 1; nothing
    torch.testing.assert_close(batch().task_losses(losses), torch.tensor([3.25, 3.0, 0.0]))


def test_padding_may_hold_anything() -> None:
    losses = torch.tensor([[1.0, 2.0, 5.0], [3.0, NAN, float("inf")], [NAN, NAN, NAN]], requires_grad=True)
    means = batch().task_losses(losses)
    torch.testing.assert_close(means, torch.tensor([3.25, 3.0, 0.0]))
    (gradient,) = torch.autograd.grad(means.sum(), losses)
    torch.testing.assert_close(gradient, torch.tensor([[0.25, 0.25, 0.5], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))


def test_the_share_of_one_task_does_not_touch_another() -> None:
    losses = torch.ones(3, 3)
    losses[0] *= 1000
    assert batch().task_losses(losses)[1] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task_index": torch.tensor([0, 1])}, r"task_index has shape \(2,\); expected \(3,\)"),
        (
            {"fields": {"reward": torch.zeros(3, 2)}},
            r"field 'reward' has shape \(3, 2\); expected \(3, 3, ...\)",
        ),
        (
            {"buckets": {"state": Bucket(torch.zeros(2, 3, 5), torch.tensor([0]))}},
            "bucket 'state' has 2 rows of values for 1 tasks",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        Batch(**{**vars(batch()), **change})  # type: ignore[arg-type]


def test_sequences_weigh_every_step() -> None:
    weight = torch.tensor([[[1.0, 1.0], [1.0, 0.0]], [[2.0, 0.0], [0.0, 0.0]]])
    sequences = Batch(
        task_index=torch.tensor([0, 1]),
        weight=weight,
        buckets={"state": Bucket(values=torch.zeros(2, 3, 2, 5), rows=torch.tensor([0, 1]))},
        fields={"reward": torch.zeros(2, 2, 2)},
    )
    losses = torch.tensor([[[1.0, 2.0], [6.0, NAN]], [[5.0, NAN], [NAN, NAN]]])
    # by hand: (1 + 2 + 6) / 3, and 2 * 5 / 2
    torch.testing.assert_close(sequences.task_losses(losses), torch.tensor([3.0, 5.0]))
    with pytest.raises(SpaceError, match=r"field 'reward' has shape \(2, 2, 3\); expected \(2, 2, 2, ...\)"):
        Batch(**{**vars(sequences), "fields": {"reward": torch.zeros(2, 2, 3)}})
    with pytest.raises(SpaceError, match=r"weight has shape \(2,\)"):
        Batch(**{**vars(sequences), "weight": torch.ones(2)})
