"""One owner at a time: real processes that die, freeze, race and come back."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mtrl import ownership
from mtrl.atomic import atomic_directory, atomic_file, remove_directory, write_text
from mtrl.deployment import Robot, RobotConfig
from mtrl.deployment.robots import simulated
from mtrl.deployment.robots.robot import own_robot
from mtrl.errors import InUseError, ResourceError, TakenOverError
from mtrl.ownership import STALE_SECONDS, Owner, require_ownership
from mtrl.run_directory import RunDirectory, own_folder, own_run
from mtrl.training import Checkpoints, JsonlTracker, Trackers

HOLD = """
import sys
from pathlib import Path
from mtrl.run_directory import own_run
from mtrl.errors import MtrlError
from mtrl import ownership
from mtrl.atomic import write_text

place = Path(sys.argv[1])
with own_run(place):
    print("owned", flush=True)
    for word in sys.stdin:
        try:
            write_text(place.parent / word.strip(), "mine")
            print("written", flush=True)
        except MtrlError as error:
            print(type(error).__name__, error, flush=True)
"""


class Holder:
    """A process that owns a run and writes a file for each word."""

    def __init__(self, place: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.read() == "owned"

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def write(self, name: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        return self.read()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Callable[[], Holder]]:
    """Makes a process that owns `tmp_path/run`."""
    made: list[Holder] = []

    def make() -> Holder:
        made.append(Holder(tmp_path / "run"))
        return made[-1]

    yield make
    for holder in made:
        holder.end()


def claim_of(lock: Path) -> Path:
    """The only claim."""
    (claim,) = (path for path in lock.glob("*/*") if path.parent.name.isdecimal())
    return claim


def rewrite(claim: Path, **changed: object) -> None:
    """Changes who the owner is said to be, and keeps the heartbeat."""
    at = claim.stat().st_mtime
    claim.write_text(json.dumps({**json.loads(claim.read_text()), **changed}))
    os.utime(claim, (at, at))


def test_a_lock_is_given_back_however_the_block_ends(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "run"
    with own_run(run), own_run(run):
        assert os.listdir(tmp_path / "runs") == [".run.owner"]
    assert os.listdir(tmp_path) == []
    with pytest.raises(KeyboardInterrupt), own_run(run):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []
    require_ownership()


def test_a_live_owner_is_named_with_host_process_and_time(tmp_path: Path, hold: Callable[[], Holder]) -> None:
    holder = hold()
    named = rf"run is in use by .*process {holder.process.pid} on {socket.gethostname()}, since 20\d\d-"
    with pytest.raises(InUseError, match=named + r".*kill -INT"), own_run(tmp_path / "run"):
        pytest.fail("two owners")
    with pytest.raises(InUseError, match=named):
        RunDirectory.create(tmp_path / "run", overwrite=True)
    # frozen for any time, a process of this machine is still there
    holder.process.send_signal(signal.SIGSTOP)
    claim = claim_of(tmp_path / ".run.owner")
    os.utime(claim, (0, 0))
    with pytest.raises(InUseError, match=named), own_run(tmp_path / "run"):
        pytest.fail("two owners")


def test_a_killed_owner_is_replaced_at_once(tmp_path: Path, hold: Callable[[], Holder]) -> None:
    holder = hold()
    holder.process.kill()
    # not waited for: a process that has ended and that nobody has asked after is gone too
    os.waitid(os.P_PID, holder.process.pid, os.WEXITED | os.WNOWAIT)
    with own_run(tmp_path / "run"):
        assert json.loads(claim_of(tmp_path / ".run.owner").read_text())["pid"] == os.getpid()
    assert os.listdir(tmp_path) == []


def test_a_later_process_of_the_same_id_is_no_owner(tmp_path: Path, hold: Callable[[], Holder]) -> None:
    hold()
    rewrite(claim_of(tmp_path / ".run.owner"), started="1")
    with own_run(tmp_path / "run"):
        pass


@pytest.mark.parametrize("elsewhere", ["host", "boot", "namespace"])
def test_an_owner_of_elsewhere_lives_by_its_heartbeat(
    tmp_path: Path, hold: Callable[[], Holder], elsewhere: str
) -> None:
    hold().process.send_signal(signal.SIGSTOP)
    claim = claim_of(tmp_path / ".run.owner")
    rewrite(claim, **{elsewhere: "another"})
    os.utime(claim, (time.time() - STALE_SECONDS + 5,) * 2)
    with pytest.raises(InUseError, match=r"sign of life 5\d s ago.*stop it there"), own_run(tmp_path / "run"):
        pytest.fail("two owners")
    os.utime(claim, (time.time() - STALE_SECONDS - 1,) * 2)
    with own_run(tmp_path / "run"):
        require_ownership()


def test_a_frozen_owner_that_was_taken_over_writes_nothing_more(
    tmp_path: Path, hold: Callable[[], Holder]
) -> None:
    """Seen from elsewhere it was silent too long; thawed, it finds out before its next write, whether its
    successor still works or has ended.
    """
    for ended in (False, True):
        holder = hold()
        assert holder.write("before") in ("written", "ExistsError")
        holder.process.send_signal(signal.SIGSTOP)
        claim = claim_of(tmp_path / ".run.owner")
        rewrite(claim, host="another")
        os.utime(claim, (time.time() - STALE_SECONDS - 1,) * 2)
        with own_run(tmp_path / "run"):
            if not ended:
                holder.process.send_signal(signal.SIGCONT)
                assert holder.write("after").startswith("TakenOverError")
                require_ownership()
        holder.process.send_signal(signal.SIGCONT)
        if ended:
            with own_run(tmp_path / "run"):
                assert claim_of(tmp_path / ".run.owner").parent.name == "1", "the frozen owner's number"
                assert holder.write("after").startswith("TakenOverError")
        assert not (tmp_path / "after").exists()
        (tmp_path / "before").unlink()
        holder.end()


def test_every_writer_stops_once_the_lock_is_lost(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with own_run(run):
        RunDirectory.create(run)
        trackers = Trackers([JsonlTracker(run)])
        trackers.log(1, {"a": 1.0})
        Checkpoints(run).save(1, {"a": 1})
        before = sorted(path for path in run.rglob("*"))
        claim = claim_of(tmp_path / ".run.owner")
        claim.rename(claim.parent / ("0" * 32))

        def directory() -> None:
            with atomic_directory(run / "artefact") as partial:
                (partial / "file").touch()

        def file() -> None:
            with atomic_file(run / "report.html") as partial:
                partial.write_text("page")

        writers: dict[str, Callable[[], object]] = {
            "metrics": lambda: trackers.log(2, {"a": 2.0}),
            "rewinding": lambda: trackers.load_state_dict({}),
            "checkpoint": lambda: Checkpoints(run).save(2, {"a": 2}),
            "configuration": lambda: RunDirectory(run).write_config({}),
            "text": lambda: write_text(run / "text", "text"),
            "removal": lambda: remove_directory(run / "videos"),
            "directory": directory,
            "file": file,
        }
        for name, write in writers.items():
            with pytest.raises(TakenOverError, match="writes nothing more"):
                write()
            assert sorted(path for path in run.rglob("*")) == before, name
        assert (run / "metrics.jsonl").read_bytes().count(b"\n") == 1


def test_the_heartbeat_goes_on_without_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "BEAT_SECONDS", 0.01)
    with own_run(tmp_path / "run"):
        claim = claim_of(tmp_path / ".run.owner")
        os.utime(claim, (0, 0))
        until = time.monotonic() + 20
        while claim.stat().st_mtime == 0 and time.monotonic() < until:
            time.sleep(0.01)
        assert time.time() - claim.stat().st_mtime < 20


def test_a_folder_in_a_run_is_the_runs(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run").path
    (tmp_path / "link").symlink_to(run)
    with own_folder(tmp_path / "link" / "demonstrations"):
        assert sorted(os.listdir(tmp_path)) == [".run.owner", "link", "run"]
    with own_folder(tmp_path / "results"):
        assert os.listdir(tmp_path / "results") == [".owner"]
    assert sorted(os.listdir(tmp_path)) == ["link", "run"]


def test_leftovers_of_killed_writers_are_swept_by_the_next_owner(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run").path
    left = "0" * 32 + ".partial"
    for path in (tmp_path / f".run.{left}", run / f".artefact.{left}", run / "policies" / f".bc.{left}"):
        (path / "inner").mkdir(parents=True)
    kept = [tmp_path / f".other.{left}", run / "watched" / f".video.{left}.mp4", run / ".mine.partial"]
    for path in (run / "videos" / f".a.mp4.{left}.mp4", *kept):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with own_run(run):
        found = [path for path in tmp_path.rglob(".*") if path.name.endswith((".partial", ".mp4"))]
    assert sorted(found) == sorted(kept)


def test_an_unreadable_claim_is_judged_by_its_age(tmp_path: Path) -> None:
    claim = tmp_path / ".owner" / "7" / "token"
    claim.parent.mkdir(parents=True)
    for content in ("", "[]", '{"pid": 1}', json.dumps({**dataclasses.asdict(Owner.here()), "boot": ""})):
        claim.write_text(content)
        os.utime(claim)
        with pytest.raises(InUseError), own_folder(tmp_path):
            pytest.fail("two owners")
    os.utime(claim, (0, 0))
    with own_folder(tmp_path):
        assert claim_of(tmp_path / ".owner").parent.name == "8"
    assert os.listdir(tmp_path) == []


def test_where_nothing_can_be_written_the_reason_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    places = {tmp_path / "file" / "x": "Not a directory", Path("/proc/x"): "No such file or directory"}
    for place, reason in places.items():
        with pytest.raises(ResourceError, match=f"cannot write to {place}: {reason}"), own_folder(place):
            pytest.fail("no folder")


RACE = """
import os, sys, time
from pathlib import Path
from mtrl.ownership import own
from mtrl.errors import InUseError

place, me = Path(sys.argv[1]), sys.argv[2]

def wait(pattern):
    while len(list(place.glob(pattern))) < 3:
        time.sleep(0)

for number in range(int(sys.argv[3])):
    (place / f"begun-{number}-{me}").touch()
    wait(f"begun-{number}-*")
    try:
        with own(place / f"lock-{number}", "it"):
            print(number, os.getpid(), flush=True)
            (place / f"ended-{number}-{me}").touch()
            wait(f"ended-{number}-*")
    except InUseError as error:
        print(number, error, flush=True)
        (place / f"ended-{number}-{me}").touch()
"""


def test_of_three_that_take_a_lock_at_once_one_has_it(tmp_path: Path) -> None:
    """Half of the locks hold the claim of a process that is gone."""
    rounds = 20
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    owner = dataclasses.replace(Owner.here(), pid=gone.pid)
    for number in range(0, rounds, 2):
        claim = tmp_path / f"lock-{number}" / "3" / "token"
        claim.parent.mkdir(parents=True)
        claim.write_text(json.dumps(dataclasses.asdict(owner)))
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    processes = [
        subprocess.Popen([*command, name, str(rounds)], stdout=subprocess.PIPE, text=True) for name in "abc"
    ]
    answers = [process.communicate()[0].splitlines() for process in processes]
    assert [len(lines) for lines in answers] == [rounds] * 3
    for number, lines in enumerate(zip(*answers, strict=True)):
        winners = [k for k, line in enumerate(lines) if line == f"{number} {processes[k].pid}"]
        assert len(winners) == 1, lines
        (winner,) = winners
        for k, line in enumerate(lines):
            assert k == winner or f"process {processes[winner].pid} on" in line, lines
    assert not list(tmp_path.glob("lock-*"))


def test_a_robot_has_one_user_and_a_simulation_any_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    arm = Robot("arm", "arms", RobotConfig(name="arm"))
    code = (
        "from mtrl.deployment import Robot, RobotConfig\n"
        "from mtrl.deployment.robots.robot import own_robot\n"
        "with own_robot(Robot('arm', 'arms', RobotConfig(name='arm'))):\n    print('owned')"
    )
    command, there = [sys.executable, "-c", code], {**os.environ, "TMPDIR": str(tmp_path)}
    with own_robot(arm):
        lock = tmp_path / "mtrl-robots" / "arm.owner"
        assert lock.stat().st_mode & 0o1777 == 0o1777, "any user of the machine may ask"
        done = subprocess.run(command, env=there, capture_output=True, text=True, check=False)
        assert "InUseError: robot 'arm' is in use by" in done.stderr
        assert f"process {os.getpid()} on" in done.stderr
    assert subprocess.run(command, env=there, capture_output=True, text=True, check=True).stdout == "owned\n"
    with own_robot(simulated.ROBOT):
        assert not (tmp_path / "mtrl-robots").exists()
