"""A trained policy as the beginning of one for other tasks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mtrl.errors import ConfigError
from mtrl.rollout import PolicySnapshot
from mtrl.tasks import TaskSet


def adopted(snapshot: PolicySnapshot, theirs: TaskSet, ours: TaskSet) -> PolicySnapshot:
    """A policy of `theirs` for the tasks `ours`. A task that both have keeps its embedding and moments; a new
    one begins with the mean of the embeddings, and with moments that are NaN until its demonstrations are
    seen. Raises ConfigError where the padded sizes differ.
    """
    for what in ("state_size", "continuous_size", "discrete_size"):
        old, new = (getattr(tasks.layout, what) for tasks in (theirs, ours))
        if old != new:
            raise ConfigError(
                f"init_from is a policy with {what.replace('_', ' ')} {old}, and these tasks have {new}: it "
                "begins a policy of other tasks only where the largest state and action are as large as "
                f"those of its own tasks, {', '.join(theirs.names)}"
            )
    known = {name: index for index, name in enumerate(theirs.names)}
    rows = np.array([known.get(name, -1) for name in ours.names])
    layout, held = ours.layout, snapshot.tensors
    embedding = held["embedding.weight"]
    moments = {name: held[name][rows].copy() for name in ("mean", "scale")}
    for values in moments.values():
        values[rows < 0] = np.nan
    columns = [layout.continuous_mask, layout.legal_mask]
    if held["action_mask"].shape[1] > sum(part.shape[1] for part in columns):
        columns.append(layout.state_mask)
    return replace(
        snapshot,
        tensors={
            **held,
            **moments,
            "embedding.weight": np.where(rows[:, None] < 0, embedding.mean(axis=0), embedding[rows]),
            "state_mask": layout.state_mask.astype(np.float32),
            "action_mask": np.concatenate(columns, axis=1).astype(np.float32),
        },
    )
