"""Whether every node of the cluster sees the folder in which runs are kept."""

from __future__ import annotations

import tempfile
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mtrl.errors import ResourceError

from .cluster import actor_environment

LOOK_SECONDS = 8.0
"""How long all nodes together may take to look."""


def require_shared(folder: Path) -> None:
    """Raises ResourceError naming the nodes of the joined cluster that do not see `folder`, which need not
    exist: a file that is put into the nearest folder above it is looked for by each of them.
    """
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    with tempfile.NamedTemporaryFile(dir=existing, prefix=".mtrl-shared-") as marker:
        looking = {
            _sees.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
                runtime_env=actor_environment(),
            ).remote(marker.name): node["NodeManagerAddress"]
            for node in nodes
        }
        done, late = ray.wait(list(looking), num_returns=len(looking), timeout=LOOK_SECONDS)
        blind = sorted(looking[answer] for answer in done if not ray.get(answer))
    if late:
        silent = ", ".join(sorted(looking[answer] for answer in late))
        raise ResourceError(
            f"{len(late)} of {len(nodes)} nodes did not say within {LOOK_SECONDS:.0f} s whether they see "
            f"{existing}: {silent}. Look at them with `ray status`"
        )
    if blind:
        raise ResourceError(
            f"{len(blind)} of {len(nodes)} nodes do not see {existing}: {', '.join(blind)}. Runs must lie on "
            "storage that all nodes mount at the same path: output=/shared/runs"
        )


@ray.remote(num_cpus=0, max_retries=0)
def _sees(path: str) -> bool:
    return Path(path).exists()
