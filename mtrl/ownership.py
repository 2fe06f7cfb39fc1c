"""One owner at a time of a run, a folder of results or a robot.

A lock is a directory of numbered claims, `<lock>/<number>/<token>`; the highest number owns. A claim is made
under another name and renamed to the next number, which succeeds for one process alone, also on NFS: no lock
of the operating system is needed. The file `<token>` names the owner, and its time of modification is
the heartbeat. Whoever was taken over finds its token gone or a higher number beside it.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mtrl.disk_errors import disk_errors
from mtrl.errors import InUseError, TakenOverError

STALE_SECONDS = 60.0
"""Age of the heartbeat at which an owner of elsewhere counts as gone."""

BEAT_SECONDS = 10.0
"""Time between two heartbeats."""

ATTEMPTS = 50
"""Tries to take a lock that changes hands meanwhile."""


@dataclass(frozen=True)
class Owner:
    """Who has a lock: a process, where it runs, and since when."""

    host: str
    boot: str
    """Id of the start of the machine; empty where the system names none."""
    namespace: str
    """Namespace in which `pid` counts; empty where the system names none."""
    pid: int
    started: str
    """Start of the process in ticks since that of the machine; a later process of the same id has another."""
    since: str
    """UTC time at which the lock was taken."""
    command: str
    """The command that took it, for the reader of a message."""

    @classmethod
    def here(cls) -> Owner:
        """This process, now."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        words = [os.path.basename(sys.argv[0]), *sys.argv[1:2]] if sys.argv and sys.argv[0] else ["python"]
        pid = os.getpid()
        return cls(
            socket.gethostname(), *_machine(), pid, _started(pid) or "", since=now, command=" ".join(words)
        )

    def ended(self) -> bool | None:
        """Whether the process is gone; None where that cannot be seen from this process."""
        known = bool(self.boot and self.namespace and self.started)
        if not known or (self.host, self.boot, self.namespace) != (socket.gethostname(), *_machine()):
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        found = _started(self.pid)
        # a process of another user may be hidden, and then it is there
        return found is not None and found != self.started


@dataclass
class Ownership:
    """A lock that this process has."""

    what: str
    """What is locked, for messages."""
    claim: Path
    """The file of this process's claim."""
    pid: int = field(default_factory=os.getpid)
    """A child that was forked is not the owner."""
    ended: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Renews the heartbeat; raises TakenOverError where another process has the lock now."""
        number = self.claim.parent
        try:
            os.utime(self.claim)
            lost = (number.parent / str(int(number.name) + 1)).exists()
        except OSError as error:
            # a disk that refuses now refuses the write that follows too, and in better words
            lost = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
        if lost:
            raise TakenOverError(
                f"{self.what} was taken over by another process while this one was not heard of for "
                f"{STALE_SECONDS:.0f} s (stopped, asleep, or cut off from the disk); it writes nothing more. "
                "What the other process does there goes on"
            )

    def beat(self) -> None:
        """Keeps the heartbeat young until the end; the body of a thread."""
        with contextlib.suppress(TakenOverError):
            while not self.ended.wait(BEAT_SECONDS):
                self.check()


_HELD: dict[Path, Ownership] = {}
"""The locks of this process, by their directories."""


def require_ownership() -> None:
    """Raises TakenOverError where a lock of this process was taken over; every writer calls it just before
    something becomes visible.
    """
    for held in list(_HELD.values()):
        if held.pid == os.getpid():
            held.check()


@contextlib.contextmanager
def own(lock: Path, what: Path | str, *, shared: bool = False) -> Iterator[bool]:
    """Takes the lock for the length of the block; yields whether it was taken now: a process that has it
    already may take it again inside.

    `lock` is its directory, made as needed and removed at the end; `what` is what it stands for, in messages;
    with `shared` every user of the machine may take it. Raises InUseError naming the owner, ResourceError
    where nothing can be written.
    """
    held = _HELD.get(lock)
    if held is not None and held.pid == os.getpid():
        yield False
        return
    made = [folder for folder in lock.parents if not folder.exists()]
    ownership = None
    try:
        with disk_errors(Path(what)):
            ownership = _HELD[lock] = Ownership(str(what), _take(lock, str(what), shared))
        threading.Thread(target=ownership.beat, name="mtrl-heartbeat", daemon=True).start()
        yield True
    finally:
        _HELD.pop(lock, None)
        if ownership is not None:
            ownership.ended.set()
            _remove(ownership.claim)
        for folder in (lock, *made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def owner_of(lock: Path) -> str | None:
    """Who has the lock: command, process, host and time; None where nobody that lives has. Writes nothing."""
    found = [_alive(claim, time.time()) for claim in (_claims(lock) if lock.is_dir() else ())]
    return next((one.who for one in found if one is not None), None)


def _take(lock: Path, what: str, shared: bool) -> Path:
    """The file of the claim that took the lock."""
    missing: FileNotFoundError | None = None
    for attempt in range(ATTEMPTS):
        try:
            claim, missing = _try(lock, what, shared), None
        except FileNotFoundError as error:
            # the last owner may remove the lock's directory at any moment, but not every time
            missing = error
        else:
            if claim is not None:
                return claim
        time.sleep(0.001 * attempt * (1 + secrets.randbelow(3)))
    if missing is not None:
        raise missing
    raise InUseError(f"{what} changes hands all the time: other processes begin and end in it. Try again")


def _try(lock: Path, what: str, shared: bool) -> Path | None:
    """The file of the claim that took the lock; None where the claims changed meanwhile."""
    lock.mkdir(parents=True, exist_ok=True)
    if shared:
        with contextlib.suppress(PermissionError):
            lock.chmod(0o1777)
    offer = lock / f".{secrets.token_hex(16)}" / secrets.token_hex(16)
    claim, taken = None, False
    offer.parent.mkdir()
    try:
        offer.write_text(json.dumps(asdict(Owner.here())), encoding="utf-8")
        before = _claims(lock)
        for other in reversed(before):
            _require_gone(other, what, now=offer.stat().st_mtime)
        number = int(before[-1].parent.name) + 1 if before else 1
        claim = lock / str(number) / offer.name
        # fails onto a directory that is not empty; the answer is not believed, a network may lose it
        with contextlib.suppress(OSError):
            offer.parent.rename(claim.parent)
        # another claim than `before` stands where the lock was given back and taken again meanwhile
        taken = claim.exists() and {*_claims(lock)} <= {claim, *before}
    finally:
        _remove(offer)
        if claim is not None and not taken:
            _remove(claim)
    if not taken:
        return None
    # whoever is about to make another offer begins again, and finds the owner
    for old in (*before, *_within(lock, [name for name in os.listdir(lock) if name.startswith(".")])):
        _remove(old)
    return claim


def _claims(lock: Path) -> list[Path]:
    """The files of the claims, by their numbers; a directory without one is free."""
    return _within(lock, map(str, sorted(int(name) for name in os.listdir(lock) if name.isdecimal())))


def _within(lock: Path, names: Iterable[str]) -> list[Path]:
    """The files of directories that other processes may remove at any moment."""
    found = []
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            found += [lock / name / token for token in os.listdir(lock / name)]
    return found


@dataclass(frozen=True)
class _Holder:
    """Who has a lock, as far as its claim tells."""

    who: str
    unseen: float | None
    """Seconds since its last sign of life, of one that cannot be seen from here; None of one that lives."""
    stop: str
    """How to stop it, behind the words "stop it"."""


def _alive(claim: Path, now: float) -> _Holder | None:
    """The owner where it lives, or gave a sign of life lately; `now` by the clock of the file system."""
    try:
        age, text = now - claim.stat().st_mtime, claim.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    who, ended, stop = "another process", None, ""
    # of another version, or cut off by a power failure, only its age says whether it is in use
    with contextlib.suppress(ValueError, TypeError):
        owner = Owner(**json.loads(text))
        ended, stop = owner.ended(), f" with `kill -INT {owner.pid}`"
        who = f"{owner.command}, process {owner.pid} on {owner.host}, since {owner.since}"
    if ended or (ended is None and age >= STALE_SECONDS):
        return None
    return _Holder(who, max(age, 0.0), " there") if ended is None else _Holder(who, None, stop)


def _require_gone(claim: Path, what: str, now: float) -> None:
    """Raises InUseError where the owner lives; `now` by the clock of the file system."""
    found = _alive(claim, now)
    if found is None:
        return
    seen = ""
    if found.unseen is not None:
        ago = f"{found.unseen:.0f} s ago and counts as gone after {STALE_SECONDS:.0f} s"
        seen = f" It gave a sign of life {ago}."
    raise InUseError(
        f"{what} is in use by {found.who}.{seen} Wait until it ends, stop it{found.stop}, or choose another "
        "place"
    )


def _remove(claim: Path) -> None:
    """Removes a claim; nothing where it is gone."""
    with contextlib.suppress(OSError):
        claim.unlink()
    with contextlib.suppress(OSError):
        claim.parent.rmdir()


def _machine() -> tuple[str, str]:
    """Id of this start of the machine, and namespace of process ids; empty where the system has none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return boot, os.readlink("/proc/self/ns/pid")
    except OSError:
        return "", ""


def _started(pid: int) -> str | None:
    """Start of a process in clock ticks, field 22 of /proc/PID/stat (proc(5)); empty for one that has ended
    and waits for its parent, None where it cannot be read.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # the name of the program, in brackets, may hold anything
    state, *fields = text.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]
