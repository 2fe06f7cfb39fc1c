"""Every torso becomes an ONNX graph that computes the same numbers for any batch of rows."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from mtrl import registry
from mtrl.deployment.artefact.export import chunk_graph
from mtrl.nn import ExpertsConfig, SoftModulesConfig, TaskEmbeddingConfig, TaskNetwork, TorsoConfig

SETTINGS = {
    **{kind: {"kind": kind, "layer_norm": True} for kind in registry.names("torso")},
    "learned": {"kind": "mlp", "embedding": TaskEmbeddingConfig(kind="learned", size=6)},
    "packed": {"kind": "experts", "experts": ExpertsConfig(dispatch="packed", hidden=8)},
    "grouped": {"kind": "experts", "experts": ExpertsConfig(hidden=8, groups=(0, 1, 1), feature_gate=2)},
    "soft_modules": {
        "kind": "soft_modules",
        "soft_modules": SoftModulesConfig(modules=3, layers=3, module_width=8, embedding=8),
    },
}


class Rows(nn.Module):
    """Each row is a batch of one sample, of its own task."""

    def __init__(self, network: TaskNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, state: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        return self.network(state.unsqueeze(1), task)["action"].squeeze(1)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_graph_computes_what_torch_computes(name: str) -> None:
    config = TorsoConfig(width=8, depth=2, output_bound=0.5, **SETTINGS[name])
    network = TaskNetwork(config, 5, {"action": 4}, 3, None, torch.Generator().manual_seed(0))
    rows = Rows(network.requires_grad_(False).eval())
    inputs = {"state": torch.zeros(2, 5), "task": torch.zeros(2, dtype=torch.int64)}
    session = onnxruntime.InferenceSession(chunk_graph(rows, inputs, 3), providers=["CPUExecutionProvider"])
    draws = np.random.default_rng(0)
    for count in (1, 3, 7):
        state = draws.standard_normal((count, 5)).astype(np.float32)
        # 3 rows: all tasks in order, which training takes a shorter way through
        task = np.arange(count) % 3
        (found,) = session.run(["chunk"], {"state": state, "task": task})
        expected = rows(torch.from_numpy(state), torch.from_numpy(task)).numpy()
        np.testing.assert_allclose(found, expected, atol=5e-6)
