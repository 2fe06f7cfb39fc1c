"""Replays in files below a policy's checkpoints, shared anew when the number of learners changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from mtrl.atomic import atomic_directory, remove_directory
from mtrl.data import MappedStorage
from mtrl.training import Agent, Baseline, Checkpoints, MapsReplay, require_format

REPLAY = "replay"
"""Folder of the replays of ranks that learn in processes of their own, below a policy's checkpoints."""


def replay_folder(place: Path, rank: int, ranks: int) -> Path:
    """Where a rank keeps its replay."""
    return place / REPLAY / f"{rank}-of-{ranks}"


def share_replays(place: Path, learner: Agent | Baseline, ranks: int, note: Callable[[str], None]) -> None:
    """Shares what the replays of another number of learners hold among `ranks` of them; 0 is this process
    alone, whose `learner` gets all of it. `note` gets what was done; nothing is where the number is the same.
    """
    folders = sorted((place / REPLAY).glob("*-of-*"), key=lambda folder: int(folder.name.split("-")[0]))
    if not isinstance(learner, MapsReplay) or replay_folder(place, 0, ranks) in folders:
        return
    if folders:
        found = [learner.map_replay(MappedStorage(folder)) for folder in folders]
        states: list[Any] = [replay.state_dict() for replay in found]
        counted = sum(replay.record.steps for replay in found if replay.record is not None)
        steps = max([counted, *Checkpoints(place).steps()])
    else:
        states, steps = _saved_alone(place, learner) if ranks > 1 else ([], 0)
    if not states:
        return
    if ranks == 0:
        learner.map_replay(None).load_part(states, 0, 1)
        remove_directory(place / REPLAY)
    else:
        with atomic_directory(place / REPLAY, overwrite=True) as partial:
            for rank in range(ranks):
                replay = learner.map_replay(MappedStorage(partial / f"{rank}-of-{ranks}"))
                replay.load_part(states, rank, ranks)
                # the first rank counts the steps so far
                replay.commit(1, 0 if rank else steps)
    note(f"the replay of {_count(len(folders))} is shared anew among {_count(ranks)}")


def _saved_alone(place: Path, learner: MapsReplay) -> tuple[list[Any], int]:
    """The replay in the checkpoint of a run that learned in one process, and the steps until then."""
    newest = Checkpoints(place).latest()
    saved = None if newest is None else require_format(newest[1])
    if saved is None or saved["ranks"] != 1:
        return [], 0
    replay = learner.map_replay(None)
    cast(Agent, learner).restore(saved["shared"], saved["local"])
    return ([replay.state_dict()], int(saved["steps"])) if replay.sizes.any() else ([], 0)


def _count(learners: int) -> str:
    return f"{learners} learner{'s' * (learners > 1)}" if learners else "one process"
