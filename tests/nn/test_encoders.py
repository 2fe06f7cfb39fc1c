"""Encoders: images, buckets that some tasks lack, task embeddings."""

import pytest
import torch

from mtrl.data import Bucket
from mtrl.errors import MtrlError, SpaceError
from mtrl.nn import (
    ObservationEncoder,
    PixelEncoder,
    PixelEncoderConfig,
    TaskEmbedding,
    TaskEmbeddingConfig,
)
from mtrl.spaces import ActionSpec, Layout, ObservationSpec

PIXELS = (3, 84, 84)
LAYOUT = Layout(
    observations=(
        ObservationSpec(state=3),
        ObservationSpec(state=2),
        ObservationSpec(pixels=PIXELS),
        ObservationSpec(state=1, pixels=PIXELS),
    ),
    actions=(ActionSpec(continuous=2),) * 4,
)


def images(*leading: int) -> torch.Tensor:
    source = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (*leading, *PIXELS), generator=source, dtype=torch.uint8)


@pytest.mark.parametrize("kind", ["nature", "small", "drq"])
def test_images_become_bounded_features_each_by_itself(kind: str) -> None:
    config = PixelEncoderConfig(kind=kind, features=6)
    encoder = PixelEncoder(config, PIXELS, torch.Generator().manual_seed(0))
    again = PixelEncoder(config, PIXELS, torch.Generator().manual_seed(0))
    batch = images(2, 2)
    found = encoder(batch)
    assert found.shape == (2, 2, 6) and found.abs().max() <= 1 and found.std() > 0.1
    assert torch.equal(found, again(batch))
    torch.testing.assert_close(encoder(batch[1:, 1:])[0, 0], found[1, 1], atol=1e-5, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(batch).isfinite().all()


def test_gradients_reach_the_first_convolution() -> None:
    encoder = PixelEncoder(PixelEncoderConfig(features=6), PIXELS, torch.Generator().manual_seed(0))
    encoder(images(1, 2)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in encoder.parameters())


def test_tasks_without_a_bucket_have_zeros_in_its_place() -> None:
    encoder = ObservationEncoder(LAYOUT, PixelEncoderConfig(features=6))
    buckets = {
        "state": Bucket(torch.ones(2, 2, 3), torch.tensor([0, 2])),
        "pixels": Bucket(images(2, 2), torch.tensor([1, 2])),
    }
    found = encoder(buckets, 3, 2)
    assert found.shape == (3, 2, 9) and encoder.size == 9
    torch.testing.assert_close(found[:, 0, :3], torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 1, 1]]))
    assert (found[0, :, 3:] == 0).all() and (found[1:, :, 3:] != 0).any()
    states_only = encoder({"state": buckets["state"]}, 3, 2)
    torch.testing.assert_close(states_only[..., :3], found[..., :3])
    assert states_only.shape == (3, 2, 9)


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(SpaceError, match="cannot read images of 20 x 20"):
        PixelEncoder(PixelEncoderConfig(), (3, 20, 20))
    with pytest.raises(SpaceError, match="images"):
        PixelEncoder(PixelEncoderConfig(), PIXELS)(torch.zeros(1, 1, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(MtrlError, match="did you mean 'nature'"):
        PixelEncoderConfig(kind="natur")


def test_one_hot_and_learned_embeddings() -> None:
    one_hot = TaskEmbedding(TaskEmbeddingConfig(), 4)
    torch.testing.assert_close(one_hot(torch.tensor([2, 0]))[:, 0], torch.eye(4)[[2, 0]])
    learned = TaskEmbedding(
        TaskEmbeddingConfig(kind="learned", size=8),
        4,
        leading=(2,),
        generator=torch.Generator().manual_seed(0),
    )
    rows = learned(torch.tensor([2, 0]))
    assert rows.shape == (2, 2, 1, 8) and not torch.equal(rows[0], rows[1])
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(2, 2, 1))
    assert list(one_hot.parameters()) == []
    free = TaskEmbedding(TaskEmbeddingConfig(kind="learned", size=8, normalised=False), 4)
    assert not torch.allclose(free(torch.tensor([2])).norm(), torch.ones(()))
