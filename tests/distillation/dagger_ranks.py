"""What ranks do in test_dagger_runtimes: distillers whose students come to other states."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtrl import registry
from mtrl.distillation import Dagger
from mtrl.reducer import Reducer

from ..ranks import main
from .test_dagger import CARTPOLE, POINT, SMALL, Balancing, stream


def learners(reducer: Reducer) -> Mapping[str, Any]:
    """Two rounds of own fragments and some of the updates that they are due."""
    tasks = registry.task_set([CARTPOLE, POINT], {})
    agent = Dagger(SMALL, Balancing(tasks), tasks, 0, rank=reducer.rank, ranks=reducer.size)
    source, metrics = stream(tasks, seed=1 + reducer.rank).stream(), []
    for steps in (800, 1600):
        agent.ingest(next(source)), agent.ingest(next(source))
        due = agent.due(steps, reducer)
        metrics += [dict(agent.update(reducer)) for _ in range(min(due, 5))]
    tensors = agent.snapshot().tensors
    weights = b"".join(np.ascontiguousarray(tensors[name]).tobytes() for name in sorted(tensors))
    states = agent.local_state()["data"]
    return {
        "due": due,
        "metrics": metrics,
        "weights": hashlib.sha256(weights).hexdigest(),
        "states": hashlib.sha256(repr(states).encode()).hexdigest(),
    }


if __name__ == "__main__":
    main({"learners": learners})
