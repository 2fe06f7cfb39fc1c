"""What `SACAgent.update` returns."""

from __future__ import annotations

from mtrl.training import Metric, Metrics

_COMPUTE = "mtrl.agents.sac.agent:SACAgent.compute_gradients"
_APPLY = "mtrl.agents.sac.agent:SACAgent.apply"

METRICS: Metrics = {
    "critic_loss/{task}": Metric(
        "mean over batch and twins of the cross entropy against the two-hot target, or of half the squared "
        "error of a scalar critic",
        "1",
        _COMPUTE,
    ),
    "value/{task}": Metric(
        "mean target r + gamma (1 - terminated) min_i Q_i(s', a'), rewards divided by the task's scale",
        "scaled reward",
        _COMPUTE,
    ),
    "actor_loss/{task}": Metric(
        "mean of alpha log pi(a|s) - min_i Q_i(s, a), every actor_every-th update", "scaled reward", _COMPUTE
    ),
    "entropy/{task}": Metric(
        "mean of -log pi(a|s) for a drawn action, or the entropy of the discrete policy", "nats", _COMPUTE
    ),
    "temperature/{task}": Metric("alpha, at least temperature_floor", "1", _APPLY),
    "critic_gradient_norm": Metric("Euclidean norm of the critics' gradient before clipping", "1", _APPLY),
    "actor_gradient_norm": Metric("Euclidean norm of the actor's gradient before clipping", "1", _APPLY),
    "skipped_updates": Metric("share of updates left out because a number was not finite", "1", _APPLY),
}
