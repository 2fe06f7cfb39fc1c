"""Transitions of a model of demonstrations, written as ordinary datasets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtrl.data import Trajectories, dataset_id_of, read_dataset, read_provenance, write_dataset
from mtrl.errors import ConfigError, UnsupportedError
from mtrl.evaluation import Provenance
from mtrl.tasks import Task, TaskSet
from mtrl.training import Synthesises, progress

from .config import Config, agent_of
from .console import Interrupted


@dataclass(frozen=True)
class Likeness:
    """How far drawn transitions are from the demonstrations: means over the entries of a transition, each in
    the demonstrations' standard deviations; 0 where both are alike.
    """

    means: float
    """Absolute difference of the means."""
    deviations: float
    """Absolute difference of the standard deviations."""

    @staticmethod
    def of(made: Trajectories, data: Trajectories) -> Likeness:
        """Of entries that vary in the demonstrations."""
        ours, theirs = made.transitions(), data.transitions()
        spread = theirs.std(axis=0)
        varies = spread > 1e-6 * np.maximum(1.0, np.abs(theirs.mean(axis=0)))
        means = np.abs(ours.mean(axis=0) - theirs.mean(axis=0))[varies] / spread[varies]
        deviations = np.abs(ours.std(axis=0) - spread)[varies] / spread[varies]
        return Likeness(float(means.mean()), float(deviations.mean()))


def synthesise_into(
    root: Path,
    tasks: TaskSet,
    missing: Sequence[Task],
    config: Config,
    *,
    stop: Callable[[], bool],
    replace: bool = False,
) -> dict[str, Likeness]:
    """Trains the agent's model on the demonstrations in `data` and writes `demonstrations.episodes` drawn
    transitions of every missing task under `root`; dataset -> how like the demonstrations they are.

    Raises ConfigError without `data`, UnsupportedError for an agent that models no transitions, Interrupted
    when `stop` said so, before anything is written.
    """
    name, factory, settings = agent_of(config)
    if not isinstance(factory, Synthesises):
        raise UnsupportedError(f"agent {name!r} models no transitions; synthesise with agent=diffusion")
    if not config.data:
        raise ConfigError("source=synthesised learns from demonstrations; name their folder with data=FOLDER")
    source = Path(config.data)
    data = {k: read_dataset(source, dataset_id_of(task), task) for k, task in enumerate(tasks)}
    count, updates = config.demonstrations.episodes, config.training.updates
    with progress("learn transitions", updates) as bar:

        def advance(done: int) -> None:
            bar.advance(done - bar.done)
            if stop():
                raise Interrupted(f"stopped after {done} of {updates} updates; nothing was written")

        made = factory.synthesised(settings, tasks, data, count, updates, config.seed, advance)
    origin = Provenance.collect()
    hashes = {task.name: read_provenance(source, dataset_id_of(task))["root_hash"] for task in tasks}
    found = {}
    for k, task in enumerate(tasks):
        if task not in missing:
            continue
        likeness = Likeness.of(made[k], data[k])
        record = {
            "source": "synthesised",
            "settings": dataclasses.asdict(config.demonstrations),
            "agent": {"name": name, **dataclasses.asdict(settings)},
            "updates": updates,
            "seed": config.seed,
            "from": hashes,
            "likeness": dataclasses.asdict(likeness),
            "commit": origin.commit,
            "packages": dict(origin.packages),
        }
        write_dataset(root, dataset_id_of(task), task, made[k], record, overwrite=replace)
        found[dataset_id_of(task)] = likeness
    return found
