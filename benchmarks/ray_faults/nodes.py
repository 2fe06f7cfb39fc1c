"""A Ray cluster of two nodes on this machine, of which the second is killed and frozen."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

STORE_BYTES = 100 * 2**20


class TwoNodes:
    """The head with this process, and another node."""

    def __init__(self, head: int, other: int, dashboard_port: int = 0) -> None:
        """Starts them with that many logical processors, and the Jobs server at a port where there is one."""
        self._other = other
        arguments: dict[str, Any] = {"num_cpus": head, "object_store_memory": STORE_BYTES}
        arguments |= {"include_dashboard": bool(dashboard_port)}
        if dashboard_port:
            arguments |= {"dashboard_host": "127.0.0.1", "dashboard_port": dashboard_port}
        self.cluster = Cluster(initialize_head=True, head_node_args=arguments)
        self.address: str = self.cluster.address
        self.second: Any = None
        self.add()

    def add(self) -> None:
        """Starts the second node."""
        self.second = self.cluster.add_node(num_cpus=self._other, object_store_memory=STORE_BYTES)
        self.cluster.wait_for_nodes()

    def kill(self) -> None:
        """Kills the second node's processes."""
        workers = descendants(self._roots(self.second))
        self.cluster.remove_node(self.second, allow_graceful=False)
        signal_all(workers, signal.SIGKILL)

    def freeze(self) -> list[int]:
        """Stops every process of the second node; returns them."""
        roots = self._roots(self.second)
        found = roots + descendants(roots)
        signal_all(found, signal.SIGSTOP)
        return found

    def raylets(self) -> list[int]:
        """Processes whose children are this cluster's actors."""
        return [pid for node in self.cluster.list_all_nodes() for pid in self._roots(node)]

    def actors(self, kind: str) -> list[int]:
        """Processes of the actors of a class."""
        found = []
        for pid in descendants(self.raylets()):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_text().startswith(f"ray::{kind}"):
                    found.append(pid)
        return found

    def close(self) -> None:
        """Ends both."""
        self.cluster.shutdown()

    @staticmethod
    def _roots(node: Any) -> list[int]:  # noqa: ANN401 - a node of Ray
        return [info.process.pid for infos in node.all_processes.values() for info in infos]


def descendants(roots: list[int]) -> list[int]:
    """Processes that these, or their children, have started."""
    children: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parent = int(place.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(place.name))
    found, waiting = [], list(roots)
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def signal_all(pids: list[int], number: int) -> None:
    """Sends a signal to those that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
