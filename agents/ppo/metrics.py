"""What `PPOAgent.update` returns."""

from __future__ import annotations

from mtrl.gradients import METRICS as SURGERY
from mtrl.training import Metric, Metrics

_UPDATE = "mtrl.agents.ppo.agent:PPOAgent.update"

METRICS: Metrics = {
    "cloning_loss": Metric(
        "mean over tasks, decisions and dimensions of (mean action - demonstrated action)^2",
        "1",
        "mtrl.agents.grpo.cloning:Cloner.update",
    ),
    "objective/{task}": Metric("mean over decisions of min(r A, clip(r) A), before each step", "1", _UPDATE),
    "entropy/{task}": Metric("mean entropy of the action distribution", "nats", _UPDATE),
    "clipped/{task}": Metric("share of decisions whose ratio is outside the clip range", "1", _UPDATE),
    "value_loss/{task}": Metric(
        "mean of (n_k(s) - (G - mean_k) / deviation_k)^2, before each step", "1", _UPDATE
    ),
    "value_mean/{task}": Metric("PopArt's mean of the task's returns", "scaled reward", _UPDATE),
    "value_deviation/{task}": Metric("PopArt's deviation of the task's returns", "scaled reward", _UPDATE),
    "gradient_norm": Metric("mean norm of the gradient before clipping", "1", _UPDATE),
    **{
        f"gradients/{part}/{name}": Metric(formula, "1", "mtrl.gradients.surgery:GradientSurgery.combine")
        for part in ("actor", "critic")
        for name, formula in SURGERY.items()
    },
}
