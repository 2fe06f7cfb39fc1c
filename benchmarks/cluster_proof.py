"""From a submitted job to a robot, through the loss of a learner and of a node.

    python benchmarks/cluster_proof.py --output proof

A cluster of two nodes on this machine. A job of two learners is submitted to it; a learner is killed, then
the second node with all that runs there. The job must go on by itself, evaluate, distil and export; the
student then flies on the simulated robot. Prints what happened when; exits with 1 where the chain breaks.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from ray_faults.nodes import TwoNodes, signal_all

from mtrl.training import read_jsonl

TASK = "point/obstacle"
STEPS = 3000
TRAIN = (
    "train", f"tasks=[{TASK}]", "agent=sac", "runtime=ray", "runtime.learners=2", "runtime.actors=2",
    f"online.steps={STEPS}", "online.warmup=256", "online.log_every=128", "online.checkpoint_every=512",
    "agent.batch_size=32", "agent.replay.capacity=8000", "agent.network.torso.width=32",
    "agent.network.torso.depth=1", "evaluation.episodes=4", "distillation.updates=100", "name=proof",
    "stages=[train,evaluate,distill,export]",
)  # fmt: skip
PATIENCE_SECONDS = 900.0


class Proof:
    """The chain, with a clock."""

    def __init__(self, folder: Path) -> None:
        """`folder` gets the run and the flights."""
        self.folder, self.run, self._began = folder, folder / "proof", time.monotonic()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    def say(self, line: str) -> None:
        """A line, with the seconds since the beginning."""
        print(f"{time.monotonic() - self._began:6.1f} s  {line}", flush=True)

    def command(self, *words: str) -> str:
        """What a command of mtrl prints; raises CalledProcessError where it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "mtrl.launch.main", *words],
            capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode:
            print(done.stdout[-3000:], done.stderr[-3000:], file=sys.stderr)
            raise subprocess.CalledProcessError(done.returncode, words)
        return done.stdout

    def submitted(self, *words: str) -> str:
        """What `mtrl submit` prints."""
        return self.command("submit", "--address", f"http://127.0.0.1:{self.port}", *words)

    def steps(self) -> int:
        """Steps in the record of the run."""
        record = self.run / "metrics.jsonl"
        rows = read_jsonl(record) if record.exists() else []
        return int(rows[-1]["step"]) if rows else 0

    def wait(self, until: Callable[[], bool], what: str) -> None:
        """Raises TimeoutError when it does not come."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not until():
            if time.monotonic() > deadline:
                raise TimeoutError(what)
            time.sleep(0.5)

    def go_on(self, after: int, what: str) -> None:
        """Waits for the record to go further than `after`."""
        began = time.monotonic()
        self.wait(lambda: self.steps() > after, what)
        self.say(f"step {self.steps()}: training goes on, {time.monotonic() - began:.1f} s after {what}")


def prove(proof: Proof) -> None:
    """All of it."""
    nodes = TwoNodes(head=4, other=2, dashboard_port=proof.port)
    try:
        proof.say("two nodes, of 4 and 2 processors")
        proof.submitted("--detach", "--name", "proof", "--", *TRAIN, f"output={proof.folder}")
        proof.say("submitted")
        proof.wait(lambda: proof.steps() >= 600, "training begins")
        reached = proof.steps()
        learners = nodes.actors("RayTrainWorker")
        signal_all(learners[:1], signal.SIGKILL)
        proof.say(f"step {reached}: one of {len(learners)} learners is killed")
        proof.go_on(reached, "its death")
        proof.wait(lambda: proof.steps() >= reached + 600, "training")
        reached = proof.steps()
        nodes.kill()
        proof.say(f"step {reached}: the second node is killed")
        proof.go_on(reached, "its end")
        proof.wait(lambda: "RUNNING" not in proof.submitted("--list"), "the job's end")
        for line in proof.submitted("--list").splitlines():
            proof.say(line)
        rows = [row["step"] for row in read_jsonl(proof.run / "metrics.jsonl")]
        if rows != sorted(set(rows)) or rows[-1] < STEPS - 256:
            raise RuntimeError(f"the record of the run goes back, or ends early: {rows}")
        proof.say(f"step {rows[-1]}: the run is complete, and its record never goes back")
    finally:
        nodes.close()
    flights = proof.folder / "flights"
    proof.command("deploy", str(proof.run / "artefact"), "robot=sim", "--out", str(flights))
    proof.say(f"the student has flown: {', '.join(sorted(p.name for p in flights.rglob('*.mcap')))}")


def main() -> int:
    """Proves it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where run and flights lie")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    try:
        prove(Proof(arguments.output.resolve()))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
