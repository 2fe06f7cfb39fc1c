"""Settings of the Stable-Baselines3 baseline, under the names and with the defaults of that library."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mtrl.errors import ConfigError, OutOfRangeError, UnknownNameError
from mtrl.structured import POSITIVE, UNIT, at_least, check

ALGORITHMS = ("sac", "ppo", "dqn")
LINE = "lin_"
"""Begins a value that falls to 0 along a line."""


@dataclass(frozen=True)
class SACArguments:
    """Arguments of `stable_baselines3.SAC`."""

    learning_rate: float = 3e-4
    """Step size of Adam for actor, critics and temperature, above 0."""
    buffer_size: int = 1_000_000
    """Transitions of the replay, all tasks together, at least 1."""
    learning_starts: int = 100
    """Environment steps of random actions before the first update, at least 0."""
    batch_size: int = 256
    """Transitions of an update, all tasks together, at least 1."""
    tau: float = 0.005
    """Share of the critics that moves into the targets, above 0 to 1."""
    gamma: float = 0.99
    """Discount, 0 to 1."""
    train_freq: int = 1
    """Steps of all environments at once between two rounds of updates, at least 1."""
    gradient_steps: int = 1
    """Updates in a round; -1 for as many as environment steps were taken since the last."""
    ent_coef: str | float = "auto"
    """Temperature: a number, "auto" to learn it from 1 on, "auto_0.1" to learn it from 0.1 on."""
    target_update_interval: int = 1
    """Updates between two moves of the targets, at least 1."""
    target_entropy: str | float = "auto"
    """Entropy that a learned temperature aims for, in nats; "auto" is minus the widest task's action size."""


@dataclass(frozen=True)
class PPOArguments:
    """Arguments of `stable_baselines3.PPO`."""

    learning_rate: float | str = 3e-4
    """Step size of Adam, above 0; "lin_0.001", as in RL Baselines3 Zoo, falls from it to 0 along a line."""
    n_steps: int = 2048
    """Steps of each environment in a rollout, at least 1; a rollout has n_steps x tasks x copies."""
    batch_size: int = 64
    """Steps of a minibatch, all tasks together, at least 2."""
    n_epochs: int = 10
    """Passes over a rollout, at least 1."""
    gamma: float = 0.99
    """Discount, 0 to 1."""
    gae_lambda: float = 0.95
    """Decay of generalised advantage estimation, 0 to 1."""
    clip_range: float | str = 0.2
    """How far the probability ratio may leave 1 before it is clipped, above 0; or "lin_0.2"."""
    normalize_advantage: bool = True
    """Whether advantages are standardised in each minibatch."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus, at least 0."""
    vf_coef: float = 0.5
    """Weight of the value loss, at least 0."""
    max_grad_norm: float = 0.5
    """Gradients longer than this are shortened to it, above 0."""
    target_kl: float | None = None
    """Divergence from the rollout's policy at which an epoch is broken off; null for none."""


@dataclass(frozen=True)
class DQNArguments:
    """Arguments of `stable_baselines3.DQN`."""

    learning_rate: float = 1e-4
    """Step size of Adam, above 0."""
    buffer_size: int = 1_000_000
    """Transitions of the replay, all tasks together, at least 1."""
    learning_starts: int = 100
    """Environment steps of random actions before the first update, at least 0."""
    batch_size: int = 32
    """Transitions of an update, all tasks together, at least 1."""
    tau: float = 1.0
    """Share of the network that moves into the target, above 0 to 1."""
    gamma: float = 0.99
    """Discount, 0 to 1."""
    train_freq: int = 4
    """Steps of all environments at once between two rounds of updates, at least 1."""
    gradient_steps: int = 1
    """Updates in a round; -1 for as many as environment steps were taken since the last."""
    target_update_interval: int = 10_000
    """Environment steps between two moves of the target, at least 1."""
    exploration_fraction: float = 0.1
    """Share of the budget over which the share of random actions falls, 0 to 1."""
    exploration_initial_eps: float = 1.0
    """Share of random actions at the beginning, 0 to 1."""
    exploration_final_eps: float = 0.05
    """Share of random actions in the end, and of the finished policy where it explores, 0 to 1."""
    max_grad_norm: float = 10.0
    """Gradients longer than this are shortened to it, above 0."""


@dataclass(frozen=True)
class SB3Config:
    """Which algorithm of Stable-Baselines3 learns, on how many copies, and with which arguments.

    The sections `sac`, `ppo` and `dqn` hold the arguments under that library's names; only the section of
    the chosen algorithm counts.
    """

    algorithm: str = "ppo"
    """"sac" (continuous tasks), "dqn" (discrete tasks) or "ppo" (either)."""
    copies: int = 1
    """Environments of each task, at least 1, all stepped in this process."""
    net_arch: tuple[int, ...] = ()
    """Units of the hidden layers of every network; empty takes the algorithm's own."""
    device: str = "auto"
    """Where the networks are: "cpu", "cuda", or "auto" for the GPU where there is one."""
    sac: SACArguments = field(default_factory=SACArguments)
    """Arguments of SAC."""
    ppo: PPOArguments = field(default_factory=PPOArguments)
    """Arguments of PPO."""
    dqn: DQNArguments = field(default_factory=DQNArguments)
    """Arguments of DQN."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the chosen algorithm's constructor, such as `n_steps` of SAC or
    `policy_kwargs.log_std_init` of PPO."""

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise UnknownNameError("agent.algorithm", self.algorithm, ALGORITHMS)
        check(self, "agent", copies=at_least(1), net_arch=at_least(1))
        for name in ALGORITHMS:
            _check_arguments(name, getattr(self, name))
        if self.ppo.normalize_advantage and self.ppo.batch_size < 2:
            raise ConfigError(
                f"agent.ppo.batch_size={self.ppo.batch_size} leaves nothing to standardise advantages by; "
                "take at least 2, or agent.ppo.normalize_advantage=false"
            )


RANGES = {
    **dict.fromkeys(("learning_rate", "tau", "clip_range", "max_grad_norm", "target_kl"), POSITIVE),
    **dict.fromkeys(("buffer_size", "batch_size", "train_freq", "target_update_interval"), at_least(1)),
    **dict.fromkeys(("n_steps", "n_epochs"), at_least(1)),
    **dict.fromkeys(("learning_starts", "vf_coef", "ent_coef"), at_least(0)),
    **dict.fromkeys(("gamma", "gae_lambda", "exploration_fraction"), UNIT),
    **dict.fromkeys(("exploration_initial_eps", "exploration_final_eps"), UNIT),
}
"""Argument of any algorithm -> its range."""


def line_from(value: object) -> float | None:
    """Where a value that falls to 0 along a line begins, of "lin_0.001"; None for a constant."""
    if not isinstance(value, str) or not value.startswith(LINE):
        return None
    try:
        return float(value.removeprefix(LINE))
    except ValueError:
        return None


def _check_arguments(section: str, arguments: object) -> None:
    own = {key: RANGES[key] for key in vars(arguments) if key in RANGES}
    for key in ("learning_rate", "clip_range"):
        value = getattr(arguments, key, 0.0)
        if isinstance(value, str):
            begins = line_from(value)
            if begins is None or not 0.0 < begins < math.inf:
                raise OutOfRangeError(f"agent.{section}.{key}", value, 'above 0, or "lin_" and such a number')
            del own[key]
    check(arguments, f"agent.{section}", **own)
    steps = getattr(arguments, "gradient_steps", 1)
    if steps != -1 and steps < 1:
        raise OutOfRangeError(f"agent.{section}.gradient_steps", steps, "-1 or at least 1")
