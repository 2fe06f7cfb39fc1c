"""Faults on Ray on purpose: actors, nodes, learners and commands that are killed or frozen.

    python benchmarks/faults.py --count 20 --json faults.json

A cluster of two nodes on this machine. What was tried before FILE was left is not tried again. Exits with 1
when something did not recover.

recovered_share          faults after which all went on, each lane's fragments in order and steps never less
actor_moved_s_max        from SIGKILL of a rollout actor to new fragments of each of its lanes
frozen_actor_moved_s_max the same from SIGSTOP
node_moved_s_max         the same from SIGKILL of all processes of its node
frozen_node_moved_s_max  the same from SIGSTOP of all processes of its node
learner_over_import      from SIGKILL of a learner to its first record, updates included, over the time of
                         `import torch, ray.train.torch` in a process started at the same moment; the largest
fragments_lost_per_kill  fragments that the learner was given and its replay does not hold, for each kill
fragments_lost_per_node  fragments that were under way on a node of one actor or in its object store when it
                         was killed or frozen, the largest; those of an actor alone are in the details
late_accepted            fragments of actors that had been replaced, that were delivered all the same
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from ray_faults.environments import FOLDER
from ray_faults.nodes import TwoNodes
from ray_faults.streams import STREAMS
from ray_faults.trainings import TRAININGS, Session, driver_killed
from side_by_side import publish

Trials = dict[str, list[dict[str, Any]]]
KINDS = (*STREAMS, *TRAININGS, "driver_killed")
BARS = {
    "recovered_share": "1",
    "actor_moved_s_max": "<= 5",
    "frozen_actor_moved_s_max": "<= 10",
    "node_moved_s_max": "<= 5",
    "frozen_node_moved_s_max": "<= 10",
    "learner_over_import": "<= 4",
    "fragments_lost_per_kill": "<= 1",
    "fragments_lost_per_node": "<= 1",
    "late_accepted": "0",
}
MOVED = {
    "actor_moved_s_max": "actor_killed",
    "frozen_actor_moved_s_max": "actor_frozen",
    "node_moved_s_max": "node_killed",
    "frozen_node_moved_s_max": "node_frozen",
}


def main() -> int:
    """Tries what is missing, prints the table, writes the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures here, and go on from them"
    )
    parser.add_argument("--count", type=int, default=20, help="faults of each kind (20)")
    parser.add_argument("--only", nargs="*", choices=KINDS, default=KINDS, help="these kinds")
    arguments = parser.parse_args()
    # for the actors, which import the environments
    here, found = str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([here, *([found] if found else [])])
    trials: Trials = {}
    if arguments.json is not None and arguments.json.exists():
        trials = json.loads(arguments.json.read_text(encoding="utf-8"))["details"]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as closing:
        os.environ[FOLDER] = folder
        nodes = TwoNodes(head=2, other=1)
        closing.callback(nodes.close)
        for kind in arguments.only:
            tried = trials.setdefault(kind, [])
            if (missing := arguments.count - len(tried)) > 0:
                try_kind(kind, nodes, missing, tried, Path(folder))
                publish("Faults on Ray", figures(trials), BARS, trials, arguments.json)
    return 0 if figures(trials)["recovered_share"] == 1 else 1


def try_kind(kind: str, nodes: TwoNodes, count: int, found: list[dict[str, Any]], folder: Path) -> None:
    """Adds `count` trials."""
    if kind in TRAININGS:
        found += Session(nodes, count, folder / kind).run(kind, say)
        return
    for number in range(count):
        found.append(
            driver_killed(folder / f"driver{number}") if kind == "driver_killed" else STREAMS[kind](nodes)
        )
        say(f"{kind} {number + 1}: {found[-1]}")


def figures(trials: Trials) -> dict[str, float]:
    """The figures of what has been tried so far."""
    every = [trial for found in trials.values() for trial in found]
    result = {
        "recovered_share": sum(trial["recovered"] for trial in every) / max(1, len(every)),
        "late_accepted": float(sum(trial.get("late", 0) for trial in every)),
    }
    for name, kind in MOVED.items():
        if trials.get(kind):
            result[name] = max(trial["moved_s"] for trial in trials[kind])
    nodes = [trial for kind in ("node_killed", "node_frozen") for trial in trials.get(kind, [])]
    if counted := [trial["lost_fragments"] for trial in nodes if "lost_fragments" in trial]:
        result["fragments_lost_per_node"] = float(max(counted))
    if learner := trials.get("learner_killed"):
        result["learner_over_import"] = max(t["seconds"] / t["import_seconds"] for t in learner)
        result["fragments_lost_per_kill"] = max(t["lost_fragments"] for t in learner) / len(learner)
    return result


def say(line: str) -> None:
    """Progress, at once."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
