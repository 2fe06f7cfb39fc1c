"""What keeps Ray from starting on this machine, found before it tries; imports no Ray."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

SOCKET_BYTES = 107
"""Longest path of a Unix socket on Linux (unix(7))."""
SOCKET = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The longest of Ray's sockets below its temporary folder, with the largest process id."""


class Obstacle(NamedTuple):
    """Why Ray does not start, and what mends it."""

    cause: str
    remedy: str


def obstacles(environment: Mapping[str, str]) -> list[Obstacle]:
    """Everything that is known to keep Ray from starting with these environment variables."""
    found = []
    temporary = environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp"
    longest = len(os.fsencode(os.path.join(temporary, SOCKET)))
    elsewhere = "set RAY_TMPDIR to a short path of a folder on this machine, such as RAY_TMPDIR=/tmp"
    if longest > SOCKET_BYTES:
        found.append(
            Obstacle(
                f"its sockets below {temporary} have paths of {longest} bytes, and the system takes at most "
                f"{SOCKET_BYTES}",
                elsewhere,
            )
        )
    if not _can_write(Path(temporary)):
        found.append(Obstacle(f"it cannot write below {temporary}, its temporary folder", elsewhere))
    token = Path(environment.get("HOME") or "/", ".ray", "auth_token")
    needed = environment.get("RAY_AUTH_MODE", "token").lower() == "token"
    given = environment.get("RAY_AUTH_TOKEN") or environment.get("RAY_AUTH_TOKEN_PATH") or _is_file(token)
    if needed and not given and not _can_write(token.parent):
        found.append(
            Obstacle(
                f"it keeps its token in {token}, where it cannot write",
                "set HOME to a folder of yours, or RAY_AUTH_TOKEN to a long random text",
            )
        )
    return found


def own_token(environment: Mapping[str, str] = os.environ) -> str:
    """The token of this user's clusters, from where Ray looks for it; empty where there is none."""
    if given := environment.get("RAY_AUTH_TOKEN", "").strip():
        return given
    home = Path(environment.get("HOME") or "/")
    with contextlib.suppress(OSError, UnicodeDecodeError):
        path = environment.get("RAY_AUTH_TOKEN_PATH") or home / ".ray" / "auth_token"
        return Path(path).read_text(encoding="utf-8").strip()
    return ""


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _can_write(folder: Path) -> bool:
    """Whether the folder, or the nearest one above it that is there, can be written."""
    try:
        nearest = next(place for place in (folder, *folder.parents) if place.exists())
    except (OSError, StopIteration):
        return False
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
