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

CLASSIC = Study(
    name="grpo_classic",
    question=(
        "Does GRPO learn without a critic and from nothing, discrete and continuous tasks in one policy, in "
        "100,000 steps of CartPole-v1, 300,000 of Acrobot-v1 and 200,000 of cartpole-balance?"
    ),
    shared=("experiment=grpo_classic", "stages=[train,evaluate]", "tracking=files", "evaluation.episodes=50"),
    variants={"grpo": ()},
    seeds=(1, 2, 3),
    methods={"grpo": ("grpo", "teacher")},
)

_PAPER = (
    "agent.sampler.oversampling=3",
    "agent.sampler.refills=10",
    "agent.weights.learning_rate=0.025",
    "agent.weights.floor=0",
)
"""MT-GRPO's settings, where `experiment=mt_grpo_metaworld4` departs from them."""

LEVERS = Study(
    name="mt_grpo_levers",
    question=(
        "What makes MT-GRPO work on control, or fail? The settings of the paper and each departure from them "
        "alone, after the clone of `grpo_metaworld4` and 100,000 decisions: a floor on the weights, slower "
        "weights, no oversampling, as many optimiser steps per decision as uniform groups take."
    ),
    shared=(*METAWORLD4.shared, "evaluation.episodes=100", "steps=100000"),
    variants={
        "uniform": ("experiment=grpo_metaworld4",),
        "paper": ("experiment=mt_grpo_metaworld4", *_PAPER),
        "floor": ("experiment=mt_grpo_metaworld4", *_PAPER, "agent.weights.floor=0.4"),
        "slow": ("experiment=mt_grpo_metaworld4", *_PAPER, "agent.weights.learning_rate=0.005"),
        "no-oversampling": ("experiment=mt_grpo_metaworld4", *_PAPER, "agent.sampler.oversampling=1"),
        "updates": ("experiment=mt_grpo_metaworld4", *_PAPER, "agent.epochs=12"),
    },
    seeds=(1, 2, 3),
    methods={
        "uniform groups": ("uniform", "teacher"),
        "MT-GRPO, paper": ("paper", "teacher"),
        "floor 0.4": ("floor", "teacher"),
        "slow weights": ("slow", "teacher"),
        "no oversampling": ("no-oversampling", "teacher"),
        "equal updates": ("updates", "teacher"),
    },
)
