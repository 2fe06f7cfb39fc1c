"""Whether distilling a diffusion policy keeps what plain cloning loses."""

from __future__ import annotations

from .record import Study

STUDY = Study(
    name="imitation",
    question=(
        "Does a one-forward student keep what its diffusion teacher learned, and does a cloned network of "
        "the same size (bc) do as well? The demonstrations of the point task pass an obstacle left or right, "
        "those of the Meta-World tasks go one way."
    ),
    shared=(
        "tasks.names=[point/obstacle,metaworld/reach-v3,metaworld/drawer-open-v3]",
        "tasks.options.metaworld.horizon=200",
        "stages=[collect,train,clone,distill,evaluate]",
        "agent.execution.noise=episode",
        "distillation.execution.noise=episode",
        "demonstrations.episodes=30",
        "training.updates=2500",
        "cloning.updates=1000",
        "distillation.updates=1200",
        "evaluation.episodes=50",
        "tracking=files",
    ),
    variants={"base": ()},
    seeds=(1, 2, 3),
    methods={"teacher": ("base", "teacher"), "bc": ("base", "bc"), "student": ("base", "student")},
)
