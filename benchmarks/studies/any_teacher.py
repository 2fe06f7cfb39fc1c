"""What students keep of teachers of every kind."""

from __future__ import annotations

from .record import Study

_ONLINE = ("stages=[train,distill,evaluate]", "agent.replay.save=false")
_DEMONSTRATED = ("stages=[collect,train,distill,evaluate]",)
_DAGGER = ("distillation.method=dagger", "distillation.steps=10000", "distillation.updates=3000")
_ONE_COPY = ("collection.copies=1", "collection.steps=10", "online.warmup=2000")

TEACHERS = Study(
    name="any_teacher",
    question=(
        "Six kinds of teachers learn reach and drawer-close of Meta-World, and each is distilled into a "
        "student of one forward pass: the diffusion policy by its own chunks, the others by DAgger. What "
        "does each student keep?"
    ),
    shared=(
        "tasks=[metaworld/reach-v3,metaworld/drawer-close-v3]",
        "tasks.options.metaworld.action_repeat=2",
        "tasks.options.metaworld.horizon=100",
        "tracking=files",
        "evaluation.episodes=100",
    ),
    variants={
        "diffusion": (
            "agent=diffusion",
            *_DEMONSTRATED,
            "demonstrations.episodes=30",
            "training.updates=3000",
        ),
        "sac": (
            "agent=sac",
            *_ONLINE,
            *_DAGGER,
            *_ONE_COPY,
            "steps=40000",
            "agent.replay_ratio=0.5",
            "agent.batch_size=64",
            "agent.discount=0.98",
            "agent.precision=auto",
        ),
        "grpo": (
            "agent=grpo",
            *_DEMONSTRATED,
            *_DAGGER,
            "demonstrations.episodes=5",
            "agent.cloning.updates=1000",
            "agent.network.std=0.3",
            "agent.network.std_floor=0.05",
            "agent.network.correlation=0.6",
            "agent.groups=8",
            "agent.learning_rate=0.0002",
            "steps=60000",
        ),
        "world-model": (
            "agent=world_model",
            *_ONLINE,
            *_DAGGER,
            "collection.copies=4",
            "collection.steps=5",
            "online.warmup=2000",
            "steps=60000",
        ),
        "sb3": (
            "agent=sb3",
            "stages=[train,distill,evaluate]",
            "agent.algorithm=sac",
            *_DAGGER,
            "steps=40000",
        ),
        "rllib": (
            "agent=rllib",
            "stages=[train,distill,evaluate]",
            "agent.algorithm=sac",
            *_DAGGER,
            "steps=20000",
        ),
    },
    seeds=(1, 2, 3),
    methods={
        f"{label}{', student' if policy == 'student' else ''}": (variant, policy)
        for variant, label in (
            ("diffusion", "diffusion"),
            ("sac", "SAC"),
            ("grpo", "GRPO"),
            ("world-model", "world model, planned"),
            ("sb3", "Stable-Baselines3"),
            ("rllib", "RLlib"),
        )
        for policy in ("teacher", "student")
    },
)
