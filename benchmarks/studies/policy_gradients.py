"""PPO against Stable-Baselines3's, and groups without a critic against PPO after cloning."""

from __future__ import annotations

from .record import Study

_LEAN = ("stages=[train,evaluate]", "tracking=files", "evaluation.episodes=100")

_NETWORK = (
    "agent.network.torso.width=64",
    "agent.network.torso.depth=2",
    "agent.network.torso.activation=tanh",
    "agent.network.normalise_until=0",
)


def _peer(name: str, steps: int, ours: tuple[str, ...], theirs: tuple[str, ...]) -> Study:
    return Study(
        name=f"ppo_{name.split('-')[0].lower()}",
        question=(
            f"Does `agent=ppo` learn {name} as Stable-Baselines3's PPO does, with the settings of RL "
            f"Baselines3 Zoo but without state-dependent exploration, in {steps:,} steps?"
        ),
        shared=(f"tasks=[gym/{name}]", *_LEAN, f"steps={steps}"),
        variants={"ppo": ("agent=ppo", *_NETWORK, "online.warmup=0", *ours), "sb3": ("agent=sb3", *theirs)},
        seeds=(1, 2, 3, 4, 5),
        methods={"ppo": ("ppo", "teacher"), "Stable-Baselines3": ("sb3", "teacher")},
    )


PEERS = (
    _peer(
        "CartPole-v1",
        50_000,
        (
            "collection.copies=8", "collection.steps=32", "agent.rollout=256", "agent.minibatches=1",
            "agent.epochs=20", "agent.gae=0.8", "agent.returns.discount=0.98", "agent.learning_rate=0.001",
            "agent.decay_rounds=196",
        ),
        (
            "agent.copies=8", "agent.ppo.n_steps=32", "agent.ppo.batch_size=256", "agent.ppo.n_epochs=20",
            "agent.ppo.gae_lambda=0.8", "agent.ppo.gamma=0.98", "agent.ppo.learning_rate=lin_0.001",
            "agent.ppo.clip_range=lin_0.2",
        ),
    ),
    _peer(
        "Pendulum-v1",
        100_000,
        (
            "collection.copies=4", "collection.steps=256", "agent.rollout=4096", "agent.minibatches=64",
            "agent.epochs=10", "agent.gae=0.95", "agent.returns.discount=0.9", "agent.learning_rate=0.001",
            "agent.network.std=1", "agent.network.std_ceiling=2",
        ),
        (
            "agent.copies=4", "agent.ppo.n_steps=1024", "agent.ppo.gae_lambda=0.95", "agent.ppo.gamma=0.9",
            "agent.ppo.learning_rate=0.001",
        ),
    ),
)  # fmt: skip
"""One task each, of the zoo's tuned settings."""

METAWORLD4 = Study(
    name="grpo_metaworld4",
    question=(
        "A policy cloned from three noisy demonstrations a task, improved by success on four tasks in "
        "300,000 decisions: by groups of episodes (GRPO), in the proportions of MT-GRPO, with as many "
        "optimiser steps per decision as GRPO's, and by PPO with a critic a task. Every seed has one clone."
    ),
    shared=(
        "stages=[collect,train,evaluate]",
        "tracking=files",
        "evaluation.episodes=200",
        "runtime.workers=0",
    ),
    variants={
        "clone": (
            "experiment=grpo_metaworld4",
            "steps=1",
            "agent.learning_rate=1e-12",
            "agent.std_learning_rate=0",
        ),
        "grpo": ("experiment=grpo_metaworld4",),
        "ppo": ("experiment=ppo_metaworld4",),
        "mt-grpo": ("experiment=mt_grpo_metaworld4",),
        "mt-grpo-updates": ("experiment=mt_grpo_metaworld4", "agent.epochs=8"),
    },
    seeds=(1, 2, 3),
    methods={
        "clone": ("clone", "teacher"),
        "grpo": ("grpo", "teacher"),
        "ppo": ("ppo", "teacher"),
        "mt-grpo": ("mt-grpo", "teacher"),
        "mt-grpo, equal updates": ("mt-grpo-updates", "teacher"),
    },
)
"""The clone takes one round with steps too small to move it."""
