"""Starting Ray, or joining a cluster, and what a worker process needs to find mtrl."""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import signal
import socket
import sysconfig
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# read by Ray while it is imported or started: no statistics leave the machine, no advice on stderr
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
import ray._private.services
import ray._private.worker

import mtrl
from mtrl.errors import ConfigError, ResourceError
from mtrl.faults import raise_terminated
from mtrl.rollout import RuntimeConfig

from .head import require_head
from .ray_start import obstacles
from .resources import OBJECT_STORE_MEGABYTES, processors

LOOPBACK = "127.0.0.1"
FREE_PROCESSORS_SECONDS = 6.0
"""How long to wait for processors that a run just ended still holds."""
JOIN_SECONDS = 5.0
"""How long a cluster's address may take to accept a connection."""
WITHOUT_RAY = "Without Ray, runtime.kind=local with runtime.workers=N uses the processors of this machine"

logger = logging.getLogger(__name__)

_users = 0
_started = False
_private = False


def worker_environment() -> dict[str, str]:
    """Environment variables of every actor: one thread, and where mtrl and plug-ins are found.

    A bare clone is on no worker's path, and the working directory must not matter; so the folder that
    holds mtrl/ goes in front of the driver's own PYTHONPATH, unless it is where packages are installed.
    """
    home = str(Path(mtrl.__file__).resolve().parent.parent)
    installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    inherited = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    folders = [os.path.abspath(entry) for entry in inherited]
    if home not in installed and home not in folders:
        folders.insert(0, home)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {**threads, "PYTHONPATH": os.pathsep.join(folders)}


def actor_environment() -> dict[str, object]:
    """Ray's runtime_env of an actor: nothing in a private cluster, whose processes inherit it all.

    Without one an actor moves into a process that Ray has started in advance, which saves a second.
    """
    return {} if _private else {"env_vars": worker_environment()}


@dataclass(frozen=True)
class Capacity:
    """What the cluster has."""

    processors: int
    """Those that learners and what evaluates beside them leave to the actors."""
    total: int
    """All of them."""
    megabytes: float | None
    """Memory that Ray counts on all nodes; None when this machine is the cluster, to be measured here."""


def connect(config: RuntimeConfig) -> Capacity:
    """Joins Ray and says what it has. Every `connect` is paired with one `disconnect`.

    A process that is connected already stays where it is. `config.address` joins that cluster;
    empty starts a private one on this machine, which needs about four seconds. Raises ConfigError when
    no cluster answers there or it does not let this process in, ResourceError when none can be started.
    """
    global _users, _started, _private
    if not ray.is_initialized():
        _private = not config.address
        _quiet()
        if config.address:
            _join(config.address)
        else:
            _start_private(max(config.actors, processors(), config.learners) + _learning(config))
        if threading.current_thread() is threading.main_thread():
            # Ray's own handler raises what cannot be told from a plug-in's SystemExit
            signal.signal(signal.SIGTERM, raise_terminated)
        _started = True
    _users += 1
    has = ray.cluster_resources()
    total = int(has.get("CPU", 0))
    return Capacity(
        total - _learning(config), total, has.get("memory", 0.0) / 2**20 if config.address else None
    )


@contextlib.contextmanager
def joined(config: RuntimeConfig) -> Iterator[Capacity]:
    """Stays joined for the length of the block; see `connect`."""
    capacity = connect(config)
    try:
        yield capacity
    finally:
        disconnect()


def largest_node() -> int:
    """Processors of the cluster's largest node, beyond which nothing is ever placed on one."""
    return max((int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]), default=0)


def disconnect() -> None:
    """Leaves Ray when the last user is done and it was `connect` that joined; ends a private cluster."""
    global _users, _started, _private
    _users = max(0, _users - 1)
    if _users == 0 and _started:
        _started = _private = False
        ray.shutdown()


def await_processors(actors: int) -> None:
    """Raises ResourceError when other work holds the processors that `actors` need.

    Without this the actors would wait for ever, silently.
    """
    deadline = time.monotonic() + FREE_PROCESSORS_SECONDS
    while (free := ray.available_resources().get("CPU", 0.0)) < actors:
        if time.monotonic() > deadline:
            raise ResourceError(
                f"{actors} rollout actors need {actors} free processors; {free:.0f} of the cluster's "
                f"{ray.cluster_resources().get('CPU', 0.0):.0f} are free. End other work on it, or lower "
                "runtime.actors"
            )
        time.sleep(0.1)


def _learning(config: RuntimeConfig) -> int:
    """Processors of the learners and of what evaluates beside them."""
    return config.learners + bool(config.learners)


def _quiet() -> None:
    """Stops what Ray prints to stdout about a dead worker, where a command may be printing JSON.

    No setting of `ray.init` covers these lines; this is the switch that Ray's own debugger uses.
    """
    ray._private.worker._worker_logs_enabled = False


def _join(address: str) -> None:
    key = f"runtime.address={address}"
    try:
        found: str = ray._private.services.canonicalize_bootstrap_address_or_die(address)
        host, _, port = found.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), JOIN_SECONDS):
            pass
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no Ray cluster answers at {key} ({error}). Give the address that `ray start --head` printed, "
            "'auto' on a node of the cluster, or nothing for a private one"
        ) from error
    if address == "auto":
        owner = listener_uid(int(port))
        if owner not in (None, os.getuid()):
            raise ConfigError(
                f"{key} found the Ray cluster at {found}, which user {_user_name(owner)} runs; to join it "
                f"all the same write runtime.address={found}"
            )
        logger.warning("runtime.address=auto joins the Ray cluster at %s", found)
    require_head(found, key)
    try:
        ray.init(address=found, logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:
        ray.shutdown()
        raise ConfigError(
            f"the Ray cluster at {key} answers and does not let this process in ({_first_line(error)}). Run "
            "`ray status` on the head; RAY_AUTH_MODE and RAY_USE_TLS must be the same on both sides"
        ) from error


def _start_private(processor_count: int) -> None:
    """Ray's processes take their environment from this one's, which is put back afterwards."""
    found = obstacles(os.environ)
    if found:
        causes = "; ".join(f"{cause}: {remedy}" for cause, remedy in found)
        raise ResourceError(f"Ray cannot start on this machine: {causes}. {WITHOUT_RAY}")
    before = {name: os.environ.get(name) for name in worker_environment()}
    os.environ.update(worker_environment())
    try:
        ray.init(
            address="local",
            num_cpus=processor_count,
            num_gpus=0,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_MEGABYTES * 2**20,
            logging_level=logging.ERROR,
            log_to_driver=False,
            _node_ip_address=LOOPBACK,
        )
    except Exception as error:
        ray.shutdown()
        raise ResourceError(
            f"Ray did not start ({_first_line(error)}). The machine may be short of memory or processors; "
            f"try again when it is less busy, and let `mtrl doctor` look. {WITHOUT_RAY}"
        ) from error
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def listener_uid(port: int) -> int | None:
    """The user of the process of this machine that listens on a TCP port; None for no such process."""
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{name}").read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    return int(fields[7])
    return None


def _user_name(uid: int | None) -> str:
    try:
        return pwd.getpwuid(uid or 0).pw_name
    except KeyError:
        return str(uid)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
