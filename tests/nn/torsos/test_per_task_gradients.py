"""Every torso's per-task gradients come out of one backward, exactly and without the slow road."""

import pytest
import torch

from mtrl import registry
from mtrl.gradients.jacobian import TaskJacobian
from mtrl.nn import ExpertsConfig, TaskEmbeddingConfig, TaskNetwork, TorsoConfig

LEARNED = TaskEmbeddingConfig(kind="learned", size=6)
SETTINGS = {
    **{kind: {"kind": kind, "layer_norm": True} for kind in registry.names("torso")},
    "learned": {"kind": "mlp", "embedding": LEARNED},
    "packed": {"kind": "experts", "experts": ExpertsConfig(dispatch="packed", gate="state")},
    "grouped": {
        "kind": "experts",
        "experts": ExpertsConfig(routed=5, common=1, groups=(0, 1, 1, 0, 1), switch=0.1),
    },
    "home": {"kind": "experts", "experts": ExpertsConfig(feature_gate=2, self_gate=True)},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_one_backward_gives_the_gradient_of_every_task(name: str) -> None:
    config = TorsoConfig(width=16, depth=2, output_bound=0.5, **SETTINGS[name])
    source = torch.Generator().manual_seed(0)
    network = TaskNetwork(config, 7, {"value": 3}, 5, 2, source).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, dtype=parameter.dtype, generator=source)
    features = torch.randn(4, 9, 7, dtype=torch.float64, generator=source)
    losses = network(features, torch.tensor([3, 0, 2, 4]))["value"].square().mean(dim=(0, 2, 3))
    jacobian = TaskJacobian(network)
    rows = jacobian.rows(losses, retain_graph=True)
    assert jacobian.slow == ()
    for task in range(4):
        found = rows.combine(*[torch.eye(4, dtype=torch.float64)[task]] * 2)
        named = dict(network.named_parameters())
        naive = torch.autograd.grad(losses[task], list(named.values()), retain_graph=True)
        for key, expected in zip(named, naive, strict=True):
            torch.testing.assert_close(found[key], expected, rtol=0.0, atol=1e-10)
