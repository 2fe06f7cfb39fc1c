"""What `GRPOAgent.update` returns."""

from __future__ import annotations

from mtrl.gradients import METRICS as SURGERY
from mtrl.training import Metric, Metrics

_UPDATE = "mtrl.agents.grpo.agent:GRPOAgent.update"
_ROUND = "mtrl.agents.grpo.learning:GroupLearner.round"
_CLOSE = "mtrl.agents.grpo.collection:RoundCollection.close"

METRICS: Metrics = {
    "cloning_loss": Metric(
        "mean over tasks, decisions and dimensions of (mean action - demonstrated action)^2",
        "1",
        "mtrl.agents.grpo.cloning:Cloner.update",
    ),
    "objective/{task}": Metric("mean over decisions of min(r A, clip(r) A), before each step", "1", _ROUND),
    "entropy/{task}": Metric("mean entropy of the action distribution", "nats", _ROUND),
    "divergence/{task}": Metric(
        "mean of exp(d) - d - 1, d = log pi_ref - log pi; 0 without the coefficient kl", "nats", _ROUND
    ),
    "clipped/{task}": Metric("share of decisions whose ratio is outside the clip range", "1", _ROUND),
    "gradient_norm": Metric("mean norm of the gradient before clipping", "1", _ROUND),
    "weight/{task}": Metric("task weight z_k for the next round; 1 / K without weights", "1", _UPDATE),
    "score/{task}": Metric("success rate or normalised score of all collected episodes", "1", _CLOSE),
    "useful_groups/{task}": Metric("share of collected groups that have a gradient", "1", _CLOSE),
    "kept_groups/{task}": Metric("groups that the round trains on", "groups", _CLOSE),
    "advantage_mean/{task}": Metric(
        "mean advantage over decisions, before tasks are standardised", "1", _CLOSE
    ),
    "advantage_std/{task}": Metric("standard deviation of the same", "1", _CLOSE),
    "std/{task}": Metric("mean standard deviation of continuous actions", "action", _UPDATE),
    "optimiser_steps": Metric("optimiser steps so far", "steps", _UPDATE),
    "decisions": Metric("decisions that the round trains on", "decisions", _UPDATE),
    **{
        f"gradients/{name}": Metric(formula, "1", "mtrl.gradients.surgery:GradientSurgery.combine")
        for name, formula in SURGERY.items()
    },
}
