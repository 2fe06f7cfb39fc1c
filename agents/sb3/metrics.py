"""What Stable-Baselines3 records, under its own names."""

from __future__ import annotations

from mtrl.training import Metric, Metrics

_SAC = "stable_baselines3.sac.sac:SAC.train"
_PPO = "stable_baselines3.ppo.ppo:PPO.train"
_DQN = "stable_baselines3.dqn.dqn:DQN.train"
_ANY = "mtrl.agents.sb3.baseline:FigureLogger.record"

METRICS: Metrics = {
    "train/learning_rate": Metric("step size of Adam", "1", _ANY),
    "train/n_updates": Metric(
        "updates so far: gradient steps of SAC and DQN, passes over a rollout of PPO; the latest value",
        "updates",
        _ANY,
    ),
    "train/critic_loss": Metric(
        "SAC: sum over the critics of half the squared error against the soft target", "reward^2", _SAC
    ),
    "train/actor_loss": Metric("SAC: mean of alpha log pi(a|s) - min_i Q_i(s, a)", "reward", _SAC),
    "train/ent_coef": Metric("SAC: the temperature alpha, one for all tasks", "1", _SAC),
    "train/ent_coef_loss": Metric("SAC: -log alpha (log pi(a|s) + target entropy)", "nats", _SAC),
    "train/loss": Metric(
        "PPO: the whole loss of the last minibatch; DQN: Huber loss of the temporal difference", "1", _PPO
    ),
    "train/policy_gradient_loss": Metric("PPO: minus the clipped surrogate objective", "1", _PPO),
    "train/value_loss": Metric("PPO: mean squared error of the value", "reward^2", _PPO),
    "train/entropy_loss": Metric("PPO: minus the mean entropy of the policy", "nats", _PPO),
    "train/approx_kl": Metric("PPO: mean of (r - 1) - log r, r the ratio of new to old", "nats", _PPO),
    "train/clip_fraction": Metric("PPO: share of steps whose ratio was clipped", "1", _PPO),
    "train/clip_range": Metric("PPO: how far the ratio may leave 1", "1", _PPO),
    "train/explained_variance": Metric(
        "PPO: 1 - Var(return - value) / Var(return), left out where returns are equal", "1", _PPO
    ),
    "train/std": Metric("PPO: mean standard deviation of continuous actions", "1", _PPO),
    "rollout/exploration_rate": Metric(
        "DQN: share of random actions; the latest value", "1", "stable_baselines3.dqn.dqn:DQN.learn"
    ),
}
