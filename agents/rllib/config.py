"""Settings of the RLlib baseline, under the names and with the defaults of that library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from mtrl.errors import ConfigError, OutOfRangeError, UnknownNameError
from mtrl.structured import POSITIVE, SHARE, UNIT, Checked, at_least, check

ALGORITHMS = ("sac", "ppo", "appo")
ACTIVATIONS = ("tanh", "relu", "silu", "elu", "linear")
BUFFERS = ("PrioritizedEpisodeReplayBuffer", "EpisodeReplayBuffer")


@dataclass(frozen=True)
class ReplayArguments:
    """`replay_buffer_config` of SAC."""

    type: str = "PrioritizedEpisodeReplayBuffer"
    """"PrioritizedEpisodeReplayBuffer" or "EpisodeReplayBuffer", which draws uniformly."""
    capacity: int = 1_000_000
    """Transitions of the replay, all tasks together, at least 1."""
    alpha: float = 0.6
    """How strongly large errors are preferred, 0 to 1; 0 is uniform."""
    beta: float = 0.4
    """How far the preference is corrected in the loss, 0 to 1."""


@dataclass(frozen=True)
class SACArguments:
    """Arguments of `SACConfig.training`."""

    actor_lr: float = 3e-5
    """Step size of the actor, above 0."""
    critic_lr: float = 3e-4
    """Step size of the critics, above 0."""
    alpha_lr: float = 3e-4
    """Step size of the log temperature, above 0."""
    gamma: float = 0.99
    """Discount, 0 to 1."""
    tau: float = 5e-3
    """Share of the critics that moves into the targets, above 0 to 1."""
    twin_q: bool = True
    """Whether there are two critics, of which the smaller value counts."""
    initial_alpha: float = 1.0
    """Temperature at the beginning, above 0."""
    target_entropy: str | float = "auto"
    """Entropy that the temperature aims for, in nats; "auto" is minus the widest task's action size, and -1
    for discrete tasks."""
    n_step: int = 1
    """Steps of reward in a target before it bootstraps, at least 1."""
    train_batch_size_per_learner: int = 256
    """Transitions of an update, all tasks together, at least 1."""
    num_steps_sampled_before_learning_starts: int = 1500
    """Environment steps before the first update, at least 0."""
    target_network_update_freq: int = 0
    """Environment steps between two moves of the targets, at least 0."""
    training_intensity: float | None = None
    """Transitions learned from per environment step, above 0; null is one update per step of all
    environments."""
    grad_clip: float | None = None
    """Largest gradient norm, above 0; null for none."""
    replay_buffer_config: ReplayArguments = field(default_factory=ReplayArguments)
    """Settings of the replay buffer."""


@dataclass(frozen=True)
class PPOArguments:
    """Arguments of `PPOConfig.training`."""

    lr: float = 5e-5
    """Step size of Adam, above 0."""
    gamma: float = 0.99
    """Discount, 0 to 1."""
    train_batch_size_per_learner: int = 4000
    """Environment steps of a rollout, all tasks together, at least 1; RLlib's default comes to as many."""
    minibatch_size: int = 128
    """Environment steps of a minibatch, from 1 to the rollout's."""
    num_epochs: int = 30
    """Passes over a rollout, at least 1."""
    lambda_: float = 1.0
    """Decay of generalised advantage estimation, 0 to 1."""
    clip_param: float = 0.3
    """How far the probability ratio may leave 1 before it is clipped, above 0."""
    vf_clip_param: float = 10.0
    """Largest squared error of the value that counts, above 0; raise it with the scale of returns."""
    vf_loss_coeff: float = 1.0
    """Weight of the value loss, at least 0."""
    entropy_coeff: float = 0.0
    """Weight of the entropy bonus, at least 0."""
    use_kl_loss: bool = True
    """Whether the divergence from the rollout's policy is part of the loss."""
    kl_coeff: float = 0.2
    """First weight of that divergence, at least 0; it is adapted."""
    kl_target: float = 0.01
    """Divergence that the weight is adapted to, in nats, above 0."""
    grad_clip: float | None = None
    """Largest gradient norm, above 0; null for none."""


@dataclass(frozen=True)
class APPOArguments:
    """Arguments of `APPOConfig.training`."""

    lr: float = 5e-4
    """Step size of Adam, above 0."""
    gamma: float = 0.99
    """Discount, 0 to 1."""
    train_batch_size_per_learner: int = 500
    """Environment steps of a batch, all tasks together, at least 1; RLlib's default comes to as many."""
    vtrace: bool = True
    """Whether advantages are V-trace's; otherwise generalised advantage estimation."""
    lambda_: float = 1.0
    """Decay of generalised advantage estimation, 0 to 1."""
    clip_param: float = 0.4
    """How far the probability ratio may leave 1 before it is clipped, above 0."""
    vf_loss_coeff: float = 0.5
    """Weight of the value loss, at least 0."""
    entropy_coeff: float = 0.01
    """Weight of the entropy bonus, at least 0."""
    use_kl_loss: bool = False
    """Whether the divergence from the target policy is part of the loss."""
    kl_coeff: float = 1.0
    """First weight of that divergence, at least 0."""
    kl_target: float = 0.01
    """Divergence that the weight is adapted to, in nats, above 0."""
    circular_buffer_num_batches: int = 8
    """Batches that are kept for learning, at least 1."""
    circular_buffer_iterations_per_batch: int = 2
    """Times that a batch is learned from, at least 1."""
    target_network_update_freq: float = 2.0
    """Turnovers of that buffer between two moves of the target policy, above 0."""
    tau: float = 1.0
    """Share of the policy that moves into the target, above 0 to 1."""
    broadcast_interval: int = 1
    """Batches between two publications of weights, at least 1."""
    grad_clip: float | None = 40.0
    """Largest gradient norm, above 0; null for none."""


@dataclass(frozen=True)
class RLlibConfig(Checked, place="agent"):
    """Which algorithm of RLlib learns, on how many processes, and with which arguments.

    The sections `sac`, `ppo` and `appo` hold the arguments under that library's names; only the section of
    the chosen algorithm counts.
    """

    algorithm: str = "ppo"
    """"sac", "ppo" or "appo", for continuous or discrete tasks."""
    env_runners: Annotated[int, at_least(0)] = 0
    """Processes that step environments, at least 0; 0 steps them in this one (RLlib: 2 for PPO and APPO).
    Each steps all tasks."""
    copies: Annotated[int, at_least(1)] = 1
    """Environments of each task in each of them, at least 1."""
    learners: Annotated[int, at_least(0)] = 0
    """Processes that learn, at least 0; 0 learns in this one (RLlib: 1 for APPO)."""
    gpus_per_learner: Annotated[float, at_least(0)] = 0.0
    """GPUs of each learner, at least 0."""
    address: str = ""
    """Ray cluster to join, "auto" on one of its nodes. Empty stays in the cluster that this process is in,
    which is the case after rollouts on it, or starts a private one on this machine."""
    fcnet_hiddens: Annotated[tuple[int, ...], at_least(1)] = (256, 256)
    """Units of the encoders' layers, at least one layer."""
    fcnet_activation: str = "tanh"
    """After each of them: "tanh", "relu", "silu", "elu" or "linear"."""
    head_fcnet_hiddens: Annotated[tuple[int, ...], at_least(1)] = ()
    """Units of the hidden layers between an encoder and its output."""
    head_fcnet_activation: str = "relu"
    """Activation after each hidden layer of `head_fcnet_hiddens`."""
    sac: SACArguments = field(default_factory=SACArguments)
    """Arguments of SAC."""
    ppo: PPOArguments = field(default_factory=PPOArguments)
    """Arguments of PPO."""
    appo: APPOArguments = field(default_factory=APPOArguments)
    """Arguments of APPO."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the chosen algorithm's `training`, such as `grad_clip_by` of each or
    `vtrace_clip_rho_threshold` of APPO."""

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise UnknownNameError("agent.algorithm", self.algorithm, ALGORITHMS)
        super().__post_init__()
        if not self.fcnet_hiddens:
            raise OutOfRangeError("agent.fcnet_hiddens", [], "at least one layer")
        for key in ("fcnet_activation", "head_fcnet_activation"):
            if getattr(self, key) not in ACTIVATIONS:
                raise UnknownNameError(f"agent.{key}", getattr(self, key), ACTIVATIONS)
        for name in ALGORITHMS:
            _check_arguments(name, getattr(self, name))
        replay = self.sac.replay_buffer_config
        _check_arguments("sac.replay_buffer_config", replay)
        if replay.type not in BUFFERS:
            raise UnknownNameError("agent.sac.replay_buffer_config.type", replay.type, BUFFERS)
        if self.ppo.minibatch_size > self.ppo.train_batch_size_per_learner:
            raise ConfigError(
                f"agent.ppo.minibatch_size={self.ppo.minibatch_size} is above "
                f"agent.ppo.train_batch_size_per_learner={self.ppo.train_batch_size_per_learner}; a rollout "
                "is cut into minibatches"
            )


RANGES = {
    **dict.fromkeys(("lr", "actor_lr", "critic_lr", "alpha_lr", "initial_alpha"), POSITIVE),
    **dict.fromkeys(("clip_param", "vf_clip_param", "kl_target"), POSITIVE),
    **dict.fromkeys(("grad_clip", "training_intensity"), POSITIVE),
    "tau": SHARE,
    **dict.fromkeys(("gamma", "lambda_", "alpha", "beta"), UNIT),
    **dict.fromkeys(("train_batch_size_per_learner", "minibatch_size", "num_epochs"), at_least(1)),
    **dict.fromkeys(("n_step", "capacity", "broadcast_interval"), at_least(1)),
    **dict.fromkeys(("circular_buffer_num_batches", "circular_buffer_iterations_per_batch"), at_least(1)),
    **dict.fromkeys(("num_steps_sampled_before_learning_starts", "target_network_update_freq"), at_least(0)),
    **dict.fromkeys(("vf_loss_coeff", "entropy_coeff", "kl_coeff"), at_least(0)),
}
"""Argument of any algorithm -> its range; None passes."""


def _check_arguments(section: str, arguments: object) -> None:
    own = {key: RANGES[key] for key in vars(arguments) if key in RANGES}
    check(arguments, f"agent.{section}", **own)
