"""Ray's processes on this machine and where they listen, read from /proc; imports no Ray."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import Finding, good, optional, warning

TRANSPORT = "Ray's transport unpickles what it receives: anyone who reaches a port runs code as you"
"""The only exception to the rule that mtrl unpickles nothing."""

GUARDS = {
    "TLS": {"RAY_USE_TLS=1", "RAY_USE_TLS=true"},
    "a token": {"RAY_AUTH_MODE=token"},
}
"""Guard -> its spellings in a node's environment."""

_PROGRAMS = re.compile(r"raylet|gcs_server|ray::|ray/dashboard|ray/_private|ray\.util\.client\.server")


@dataclass(frozen=True)
class Listener:
    """An open port of one of Ray's processes."""

    address: str
    port: int
    program: str

    @property
    def is_open(self) -> bool:
        """Whether other machines can reach it."""
        return not ipaddress.ip_address(self.address).is_loopback


@dataclass(frozen=True)
class RayProcesses:
    """Ray on this machine."""

    listeners: tuple[Listener, ...] = ()
    running: bool = False
    """Whether a node of a cluster runs here."""
    guards: tuple[str, ...] = ()
    """Guards of its transport: TLS, a token."""


def check_ray_version(version: str | None) -> Finding:
    """`version` of the installed package, None where there is none."""
    if version is None:
        return optional(
            "Ray", "not installed: runtime=local only", "pip install 'ray[default,rllib]==2.60.0'"
        )
    return good("Ray", version)


def check_ray_ports(ray: RayProcesses) -> Finding:
    """A running cluster's ports beyond loopback, unless TLS or a token guards them."""
    if not ray.running:
        return good(
            "Ray cluster", f"none is running here; {TRANSPORT}, so keep clusters on a trusted network"
        )
    beyond = sorted({listener.port for listener in ray.listeners if listener.is_open})
    if not beyond:
        return good("Ray cluster", "one is running, and listens on loopback only")
    shown = ", ".join(map(str, beyond[:8])) + (f" and {len(beyond) - 8} more" if len(beyond) > 8 else "")
    ports = f"{len(beyond)} ports beyond loopback ({shown})"
    if ray.guards:
        return good("Ray cluster", f"one is running with {' and '.join(ray.guards)}, on {ports}")
    return warning(
        "Ray cluster",
        f"one is running on {ports}; {TRANSPORT}",
        "keep it on a trusted network behind a firewall, or set RAY_USE_TLS=1 with certificates, or "
        "RAY_AUTH_MODE=token, on every node",
    )


def check_ray_token(found: bool, readable_by: int) -> Finding:
    """Whether this user has a token for clusters; `readable_by`: mode bits of its file for others."""
    if readable_by:
        return warning("Ray token", "others may read ~/.ray/auth_token", "chmod 600 ~/.ray/auth_token")
    if found:
        return good(
            "Ray token", "there is one, for RAY_AUTH_MODE=token ray start --head and for heads that ask"
        )
    return optional(
        "Ray token",
        "none: a cluster of `ray start` is open to whoever reaches its ports",
        "ray get-auth-token --generate, then RAY_AUTH_MODE=token ray start --head",
    )


def check_ray_address(cluster: str, server: str) -> list[Finding]:
    """RAY_ADDRESS and RAY_API_SERVER_ADDRESS, which choose a cluster where no command line does."""
    given = (("RAY_ADDRESS", cluster, "auto"), ("RAY_API_SERVER_ADDRESS", server, "mtrl submit"))
    return [good("Ray address", f"{what} takes {name}={value}") for name, value, what in given if value]


def ray_processes(root: Path = Path("/proc")) -> RayProcesses:
    """Ray's processes and their ports; of other users' processes only their existence."""
    sockets = dict(_listening(root))
    found: set[Listener] = set()
    guards: set[str] = set()
    running = False
    for process in root.glob("[0-9]*"):
        # The program is among the first words; a later one may be an argument of another program.
        program = _PROGRAMS.search(" ".join(_words(process / "cmdline")[:4]))
        if program is None:
            continue
        found |= {Listener(*sockets[inode], program[0]) for inode in _inodes(process) if inode in sockets}
        if program[0] in ("raylet", "gcs_server"):
            running = True
            settings = set(_words(process / "environ"))
            guards |= {name for name, spellings in GUARDS.items() if settings & spellings}
    ordered = sorted(found, key=lambda listener: (listener.port, listener.address))
    return RayProcesses(tuple(ordered), running, tuple(sorted(guards)))


def _listening(root: Path) -> Iterator[tuple[str, tuple[str, int]]]:
    """Inode -> (address, port) of every listening TCP socket (proc(5): state 0A, addresses in host order)."""
    for name in ("tcp", "tcp6"):
        try:
            lines = (root / "net" / name).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 9 and fields[3] == "0A":
                address, _, port = fields[1].partition(":")
                yield fields[9], (_address(address), int(port, 16))


def _address(digits: str) -> str:
    raw = bytes.fromhex(digits)
    words = (raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    address = ipaddress.ip_address(b"".join(words))
    return str(getattr(address, "ipv4_mapped", None) or address)


def _words(file: Path) -> list[str]:
    """The entries of a file of /proc that separates them by zero bytes."""
    try:
        return file.read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return []


def _inodes(process: Path) -> Iterator[str]:
    """Inodes of the sockets of a process; none for those that this user may not inspect."""
    with contextlib.suppress(OSError):
        for link in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                if (target := str(link.readlink())).startswith("socket:["):
                    yield target[len("socket:[") : -1]
