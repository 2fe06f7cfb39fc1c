"""Multi-task soft actor-critic for continuous and discrete tasks in one run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mtrl.errors import ConfigError
from mtrl.gradients import METRICS as SURGERY_METRICS
from mtrl.lazy import lazy_names
from mtrl.rollout import LOG_PROBABILITY, Extra, Policy, PolicySnapshot
from mtrl.spaces import Layout
from mtrl.tasks import TaskSet
from mtrl.training import Metric, Metrics, Needs, Offline, Stream

from .config import ExplorationConfig, NetworkConfig, NormalisationConfig, SACConfig

if TYPE_CHECKING:
    from mtrl.nn import TaskController

    from .agent import SACAgent
    from .policy import SACPolicy

_UPDATE = "mtrl.agents.sac.agent:SACAgent.update"

_TORSO = {
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
        for name, formula in SURGERY_METRICS.items()
    },
    **{
        f"torso/{part}/{name}": Metric(formula, unit, "mtrl.nn.expert_diagnostics:torso_diagnostics")
        for part in ("critic", "actor")
        for name, (formula, unit) in _TORSO.items()
    },
    "skipped_updates": Metric("share of updates left out because a number was not finite", "1", _UPDATE),
}


class SACFactory:
    """The entry point `sac` of the group mtrl.agents."""

    name = "sac"
    controller_serves = ("pixels", "discrete")
    config_class = SACConfig
    metrics = METRICS

    def needs(self, config: SACConfig, tasks: TaskSet) -> Needs:
        """A stream; demonstrations where the settings mix them in; a policy to begin as, if named."""
        offline = Offline(rewards=True, failures=True) if config.replay.demonstrations > 0 else None
        return Needs(offline=offline, online=Stream(), parents=("init_from",))

    def extras(self, config: SACConfig, layout: Layout) -> tuple[Extra, ...]:
        """The log-probability of what was drawn."""
        return (LOG_PROBABILITY,)

    def build(
        self,
        config: SACConfig,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        parents: Mapping[str, Policy] | None = None,
    ) -> SACAgent:
        """A new agent, which begins as the actor of the parent "init_from"."""
        from .agent import SACAgent
        from .policy import SACPolicy

        parent = (parents or {}).get("init_from")
        if parent is not None and not isinstance(parent, SACPolicy):
            raise ConfigError(
                f"init_from is a policy of the SAC agent; got a {type(parent).__name__}. "
                "Name a run of agent=sac"
            )
        return SACAgent(config, tasks, seed, rank=rank, ranks=ranks, parent=parent)

    def replay_bytes(self, config: SACConfig, tasks: TaskSet) -> int:
        """Bytes of the full replay."""
        from mtrl.data import replay_bytes

        return replay_bytes(tasks, config.replay)

    def saves_replay(self, config: SACConfig) -> bool:
        """Whether checkpoints hold it."""
        return config.replay.save

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> SACPolicy:
        """The policy of a snapshot."""
        from .policy import policy_from

        return policy_from(snapshot, tasks)

    def controller(self, snapshot: PolicySnapshot, tasks: TaskSet) -> TaskController:
        """The same without exploration, for export."""
        from mtrl.nn import TaskController

        from .policy import actor_from

        actor = actor_from(snapshot, tasks)
        return TaskController(actor.observer, actor.network, tasks.layout)


AGENT = SACFactory()

__all__ = [
    "AGENT",
    "ExplorationConfig",
    "NetworkConfig",
    "NormalisationConfig",
    "SACAgent",
    "SACConfig",
    "SACFactory",
    "SACPolicy",
]

__getattr__, __dir__ = lazy_names(__name__)
