"""Whether gradient surgery helps, and how far the task gradients it works on oppose each other at all."""

from __future__ import annotations

from .record import Study

SETS = {
    "open-close": ("drawer-open-v3", "drawer-close-v3", "window-open-v3", "window-close-v3"),
    "doors": ("door-open-v3", "door-close-v3", "faucet-open-v3", "faucet-close-v3"),
    "unlike": ("reach-v3", "push-v3", "drawer-close-v3", "button-press-topdown-v3"),
}
"""Candidates: two kinds of pairs that undo each other, and four tasks that merely differ."""

CHOSEN = "open-close"
"""The set that the weightings are compared on, in a narrow torso, where short trials conflicted the most;
`task_conflict` measures all candidates, this one in a wide torso too."""

NARROW = ("agent.network.torso.width=32", "agent.network.torso.task_input=false")
"""A torso of 32 units without the task as input, so that tasks must share features; outputs stay per task."""

SHOWN = "agent.replay.demonstrations=0.5"
"""Half of each batch from the tasks' experts: without it so narrow a torso learns one of the four in the time
given, and nothing can be compared."""

_SHARED = (
    "agent=sac",
    "experiment=sac_mixed",
    "agent.network.critic=categorical",
    "stages=[train,evaluate]",
    "tracking=files",
    "agent.replay_ratio=0.25",
    "agent.replay.save=false",
    "evaluation.episodes=50",
)


def _names(candidate: str) -> str:
    return f"tasks.names=[{','.join(f'metaworld/{name}' for name in SETS[candidate])}]"


CONFLICT = Study(
    name="task_conflict",
    question=(
        "How far do the critics' gradients of different tasks point against each other? Three sets of four "
        "Meta-World tasks, each a short run, and one of them again in narrow torsos; which is a fair test of "
        "surgery?"
    ),
    shared=(*_SHARED, "agent.gradients.method=pcgrad", "online.steps=12000", "evaluation.episodes=10"),
    variants={candidate: (_names(candidate),) for candidate in SETS}
    | {f"{CHOSEN}-narrow": (_names(CHOSEN), *NARROW, SHOWN)},
    seeds=(1,),
    methods={},
)

STUDY = Study(
    name="gradient_surgery",
    question=(
        "Does combining task gradients by surgery learn more than their plain sum, on two pairs of tasks "
        "that undo each other, in a torso of 32 units without the task as input, with half of each batch "
        "from demonstrations? The cosines below say how far their gradients did oppose each other."
    ),
    shared=(
        *_SHARED,
        _names(CHOSEN),
        *NARROW,
        SHOWN,
        "online.steps=40000",
        "online.checkpoint_every=20000",
    ),
    variants={
        method: (f"agent.gradients.method={method}",)
        for method in ("sum", "pcgrad", "cagrad", "upgrad", "fairgrad")
    },
    seeds=(1, 2, 3),
    methods={method: (method, "teacher") for method in ("sum", "pcgrad", "cagrad", "upgrad", "fairgrad")},
)
