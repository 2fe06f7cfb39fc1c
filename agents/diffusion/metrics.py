"""What `DiffusionAgent.update` returns."""

from __future__ import annotations

from mtrl.gradients import METRICS as SURGERY_METRICS
from mtrl.training import Metric, Metrics

METRICS: Metrics = {
    "loss": Metric(
        "mean over tasks of sum(weight x sample loss) / sum(weight). Diffusion: sample loss is "
        "|F(c_in x, c_noise) - (clean - c_skip x) / c_out|^2 averaged over real chunk entries (Karras "
        "eq. 8). Averaged alike, flow: |v(x_t, t) - (clean - noise)|^2; mip: |f(0, 0) - clean|^2 / t^2 + "
        "|f(clean + (1 - t) noise, t) - clean|^2 / (1 - t)^2; regression: |predicted - clean|^2",
        "1",
        "mtrl.agents.diffusion.agent:DiffusionAgent.update",
    ),
    "gradient_norm": Metric(
        "Euclidean norm of the gradient of loss over all weights, before clipping to gradient_clip",
        "1",
        "mtrl.agents.diffusion.agent:DiffusionAgent.update",
    ),
    "learning_rate": Metric(
        "learning_rate (n + 1) / warmup during warm-up, then "
        "learning_rate / 2 (1 + cos(pi (n - warmup) / (decay_updates - warmup))) at update n",
        "1",
        "mtrl.agents.diffusion.agent:DiffusionAgent._learning_rate",
    ),
    **{
        f"gradients/{name}": Metric(
            f"{meaning}; where agent.gradients is not the plain sum",
            "1",
            "mtrl.gradients.surgery:GradientSurgery.step",
        )
        for name, meaning in SURGERY_METRICS.items()
    },
}
