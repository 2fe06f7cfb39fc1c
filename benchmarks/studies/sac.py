"""What multi-task SAC reaches, against published settings, simple play, and its own defaults taken away."""

from __future__ import annotations

from .record import REFERENCES, Study

SEEDS = (1, 2, 3)

_SAC = ("stages=[train,evaluate]", "tracking=files", "agent.replay.save=false", "evaluation.episodes=50")

PUBLISHED = (
    "online.steps=90000",
    "agent.network.torso.depth=3",
    "agent.network.torso.layer_norm=false",
    "agent.network.critic=scalar",
    "agent.normalisation.observations=false",
    "agent.normalisation.returns=false",
    "agent.exploration.initial_temperature=1",
    "agent.exploration.target_entropy=-1",
    "agent.exploration.temperature_floor=0",
    "agent.exploration.temperature_rate=0.0003",
    "agent.exploration.log_deviation_low=-20",
    "agent.exploration.log_deviation_high=2",
    "agent.batch_size=128",
    "agent.discount=0.99",
    "agent.target_rate=0.005",
    "agent.learning_rate=0.0003",
    "agent.adam_epsilon=0.00001",
    "agent.gradient_clip=1",
    "agent.actor_every=1",
    "agent.entropy_in_target=true",
)
"""MTMHSAC (Meta-World+, McLean et al. 2025) but for the width, which stays 256 as ours (there 400), and the
replay ratio, which is one update per step of all tasks either way. Half the steps cost some three
quarters of the minutes of ours."""

CATEGORICAL = "agent.network.critic=categorical"
"""The critic that was the default until these studies."""

MIXED = Study(
    name="sac_mixed",
    question=(
        "Do the defaults of `agent=sac` learn five heterogeneous tasks better than the published settings of "
        "MTMHSAC (three layers of 256 units, batches of 128 per task, squared error, no normalisation), at "
        "equal steps and at equal CPU minutes? The first table compares whole runs, of which those of "
        "MTMHSAC have half the steps. A third column has the defaults with a categorical critic in place of "
        "the scalar one."
    ),
    shared=("agent=sac", "experiment=sac_mixed", *_SAC, "online.evaluate_every=45000"),
    variants={
        "scalar-critic": ("agent.network.critic=scalar",),
        "published": PUBLISHED,
        "base": (CATEGORICAL,),
    },
    seeds=SEEDS,
    methods={
        "sac": ("scalar-critic", "teacher"),
        "mtmhsac": ("published", "teacher"),
        "categorical critic": ("base", "teacher"),
    },
    equal_cost=("sac", "mtmhsac"),
)

EVERYTHING = Study(
    name="sac_everything",
    question=(
        "Does one run learn tasks that act by vectors and tasks that act by index, and is it better than "
        "random play and, where tasks act by index, than the best constant action? Another column has a "
        "categorical critic in place of the scalar one."
    ),
    shared=("agent=sac", "experiment=sac_everything", *_SAC),
    variants={"scalar-critic": ("agent.network.critic=scalar",), "base": (CATEGORICAL,)},
    seeds=SEEDS,
    methods={
        "sac": ("scalar-critic", "teacher"),
        "categorical critic": ("base", "teacher"),
        "random": (REFERENCES, "random"),
        "constant": (REFERENCES, "constant"),
    },
    references=True,
)

DEFAULTS = Study(
    name="sac_defaults",
    question=(
        "What does each default of `agent=sac` contribute to the first sixth of the mixed run, when it alone "
        "is taken away? The critic is categorical, as it was by default until this study, or scalar."
    ),
    shared=(
        "agent=sac",
        "experiment=sac_mixed",
        *_SAC,
        "online.steps=30000",
        "online.checkpoint_every=15000",
    ),
    variants={
        "full": (CATEGORICAL,),
        "no-layer-norm": (CATEGORICAL, "agent.network.torso.layer_norm=false"),
        "scalar-critic": ("agent.network.critic=scalar",),
        "no-return-scale": (CATEGORICAL, "agent.normalisation.returns=false"),
        "no-observation-scale": (CATEGORICAL, "agent.normalisation.observations=false"),
        "no-temperature-floor": (CATEGORICAL, "agent.exploration.temperature_floor=0"),
    },
    seeds=SEEDS,
    methods={
        "full": ("full", "teacher"),
        "no LayerNorm": ("no-layer-norm", "teacher"),
        "scalar critic": ("scalar-critic", "teacher"),
        "raw returns": ("no-return-scale", "teacher"),
        "raw observations": ("no-observation-scale", "teacher"),
        "no temperature floor": ("no-temperature-floor", "teacher"),
    },
)
