"""What the world model reaches: beside SAC, on one task at a time, and with experts against without."""

from __future__ import annotations

from .record import REFERENCES, Study

SEEDS = (1, 2, 3)

_LEAN = ("stages=[train,evaluate]", "tracking=files", "agent.replay.save=false", "evaluation.episodes=20")

_SAC = (
    "agent=sac",
    "agent.replay_ratio=0.2",
    "agent.batch_size=64",
    "agent.discount=0.98",
    "agent.precision=auto",
    "collection.copies=1",
    "collection.steps=10",
)
"""SAC as `experiment=sac_mixed` sets it, four times as many updates per decision as the world model."""

MIXED = Study(
    name="world_model_mixed",
    question=(
        "Does one world model learn five heterogeneous tasks, continuous and discrete, in 20 minutes of one "
        "thread, and is it ahead of SAC at equal decisions and at equal CPU minutes? The world model plans "
        "while it is evaluated."
    ),
    shared=("experiment=world_model_mixed", *_LEAN, "online.evaluate_every=90000"),
    variants={"world-model": (), "sac": _SAC},
    seeds=SEEDS,
    methods={"world model": ("world-model", "teacher"), "sac": ("sac", "teacher")},
    equal_cost=("world model", "sac"),
)

ATARI = Study(
    name="world_model_atari",
    question=(
        "Does one world model learn two games from the console's memory, one from its images and two tasks "
        "of states in 30 minutes of one thread? The prior acts; random play and the best constant action, "
        "chosen on the very starts, are beside it."
    ),
    shared=("experiment=world_model_atari", *_LEAN, "evaluation.random=false", "evaluation.constant=false"),
    variants={"world-model": ()},
    seeds=SEEDS,
    methods={
        "world model": ("world-model", "teacher"),
        "random": (REFERENCES, "random"),
        "constant": (REFERENCES, "constant"),
    },
    references=True,
)


def _experts(name: str, tasks: str) -> Study:
    return Study(
        name=f"world_model_experts_{name}",
        question=(
            "Do experts help the world model? A mixture of experts against one network of as many active "
            "parameters, after 60,000 equal decisions, where the curves of the longer runs are steep."
        ),
        shared=("experiment=world_model_mixed", *_LEAN, tasks, "online.steps=60000"),
        variants={"experts": (), "dense": ("agent.experts.dense=true",)},
        seeds=SEEDS,
        methods={"experts": ("experts", "teacher"), "dense": ("dense", "teacher")},
    )


EXPERTS = (
    _experts(
        "mixed",
        "tasks.names=[dmc/cartpole-swingup,dmc/reacher-easy,metaworld/drawer-close-v3,metaworld/reach-v3,"
        "gym/CartPole-v1]",
    ),
    _experts(
        "metaworld",
        "tasks.names=[metaworld/reach-v3,metaworld/drawer-close-v3,metaworld/button-press-topdown-v3,"
        "metaworld/window-open-v3,metaworld/door-close-v3]",
    ),
    _experts(
        "dmc",
        "tasks.names=[dmc/cartpole-swingup,dmc/cartpole-balance,dmc/reacher-easy,dmc/pendulum-swingup,"
        "dmc/ball_in_cup-catch]",
    ),
)
"""Three task sets, fixed before any of these runs."""


def _efficiency(task: str) -> Study:
    return Study(
        name=f"world_model_{task.replace('-', '_')}",
        question=(
            f"What does the world model reach on dmc/{task} alone after 30,000 decisions of two frames each, "
            "one update per decision?"
        ),
        shared=(
            "agent=world_model",
            f"tasks=[dmc/{task}]",
            "tasks.options.dmc.action_repeat=2",
            *_LEAN,
            "steps=30000",
            "online.warmup=1000",
            "online.log_every=1000",
            "agent.replay_ratio=1",
            "agent.batch_size=128",
            "collection.copies=1",
            "collection.steps=5",
        ),
        variants={"world-model": ()},
        seeds=SEEDS,
        methods={"world model": ("world-model", "teacher")},
    )


EFFICIENCY = tuple(_efficiency(task) for task in ("cartpole-swingup", "reacher-easy", "walker-walk"))
