"""What `SACAgent.update` returns."""

from __future__ import annotations

from mtrl.gradients import METRICS as SURGERY
from mtrl.training import Metric, Metrics

_UPDATE = "mtrl.agents.sac.agent:SACAgent.update"

INSIDE = {
    "dormant_units": ("share of dormant units, mean over layers", "1"),
    "gate_entropy/{layer}": ("entropy of a sample's gates / ln(number of experts)", "1"),
    "task_expert_information/{layer}": ("mutual information of task and expert", "nats"),
    "expert_load_min/{layer}": ("smallest share of samples that an expert takes", "1"),
    "expert_load_max/{layer}": ("largest share of samples that an expert takes", "1"),
    "load_variation/{layer}": ("standard deviation of the experts' loads / their mean", "1"),
    "expert_cosine/{layer}": ("mean cosine between the outputs of two experts", "1"),
}
"""Every `diagnostics_every` updates; mixtures only, but for the first."""

METRICS: Metrics = {
    "critic_loss/{task}": Metric(
        "mean over batch and twins of the cross entropy against the two-hot target, or of half the squared "
        "error of a scalar critic",
        "1",
        _UPDATE,
    ),
    "value/{task}": Metric(
        "mean target r + gamma (1 - terminated) min_i Q_i(s', a'), rewards divided by the task's scale",
        "scaled reward",
        _UPDATE,
    ),
    "actor_loss/{task}": Metric(
        "mean of alpha log pi(a|s) - min_i Q_i(s, a), every actor_every-th update", "scaled reward", _UPDATE
    ),
    "entropy/{task}": Metric(
        "mean of -log pi(a|s) for a drawn action, or the entropy of the discrete policy", "nats", _UPDATE
    ),
    "temperature/{task}": Metric("alpha, at least temperature_floor", "1", _UPDATE),
    "critic_gradient_norm": Metric("Euclidean norm of the critics' gradient before clipping", "1", _UPDATE),
    "actor_gradient_norm": Metric("Euclidean norm of the actor's gradient before clipping", "1", _UPDATE),
    **{
        f"gradients/{part}/{name}": Metric(formula, "1", "mtrl.gradients.surgery:GradientSurgery.combine")
        for part in ("critic", "actor")
        for name, formula in SURGERY.items()
    },
    **{
        f"torso/{part}/{name}": Metric(formula, unit, "mtrl.nn.expert_diagnostics:torso_diagnostics")
        for part in ("critic", "actor")
        for name, (formula, unit) in INSIDE.items()
    },
    "skipped_updates": Metric("share of updates left out because a number was not finite", "1", _UPDATE),
}
