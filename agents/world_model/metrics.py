"""What `WorldModelAgent.update` returns."""

from __future__ import annotations

from mtrl.gradients import METRICS as SURGERY
from mtrl.training import Metric, Metrics

_UPDATE = "mtrl.agents.world_model.agent:WorldModelAgent.update"

_INSIDE = "mtrl.agents.world_model.diagnostics:measure"

METRICS: Metrics = {
    "consistency_loss/{task}": Metric(
        "mean squared error of the predicted latent against the encoder's, weighted by rho^t", "1", _UPDATE
    ),
    "reward_loss/{task}": Metric("cross entropy of the reward against its two-hot", "nats", _UPDATE),
    "q_loss/{task}": Metric(
        "cross entropy of the Q functions against the two-hot of the return, mean over members",
        "nats",
        _UPDATE,
    ),
    "termination_loss/{task}": Metric("binary cross entropy of a terminal next state", "nats", _UPDATE),
    "value/{task}": Metric("mean return that Q functions are fitted to", "scaled reward", _UPDATE),
    "policy_loss/{task}": Metric("mean of alpha log pi(a|z) - Q(z, a) / S", "1", _UPDATE),
    "entropy/{task}": Metric("mean of -log pi(a|z) after the squash", "nats", _UPDATE),
    "temperature/{task}": Metric("alpha, at least temperature_floor", "1", _UPDATE),
    "q_scale/{task}": Metric(
        "S, moving average of the targets' range from 5% to 95%", "scaled reward", _UPDATE
    ),
    "effective_rank": Metric("exp of the entropy of the latents' normalised singular values", "1", _INSIDE),
    "dormant_units": Metric("share of the Q functions' units that are dormant", "1", _INSIDE),
    "latent_error_{layer}/{task}": Metric(
        "mean squared error of the latent unrolled over so many steps", "1", _INSIDE
    ),
    "gate_entropy/{task}": Metric("entropy of the task's gate / ln(number of experts)", "1", _INSIDE),
    "gate_entropy_marginal": Metric("the same of the mean gate over tasks", "1", _INSIDE),
    "expert_{layer}_use/{task}": Metric("weight that the task gives to the expert", "1", _INSIDE),
    "exchanged_gate_error/{task}": Metric(
        "latent error of the whole sequence with the gate of another task, over that with its own",
        "1",
        _INSIDE,
    ),
    "unused_expert_error/{task}": Metric(
        "the same with the most probable of the experts that the task does not use", "1", _INSIDE
    ),
    "planning_gain/{task}": Metric(
        "the model's return of the plan minus that of the prior's own actions, / S", "1", _INSIDE
    ),
    **{
        f"gradients/model/{name}": Metric(formula, "1", "mtrl.gradients.surgery:GradientSurgery.combine")
        for name, formula in SURGERY.items()
    },
    "model_gradient_norm": Metric("Euclidean norm of the model's gradient before clipping", "1", _UPDATE),
    "policy_gradient_norm": Metric("Euclidean norm of the policy's gradient before clipping", "1", _UPDATE),
}
