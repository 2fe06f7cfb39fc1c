"""Commands that refuse: how soon they say something, how soon they have refused, and what they leave behind.

    python benchmarks/commands.py --json commands.json

Every command below names something that is not there or contradicts itself. Each runs in an empty folder, in
a process of its own, one after another; files are read once before, so that the disk's cache is warm.

first_line_s_max   longest time to the first line of output, in seconds; the bar is 1 at rest
refused_s_max      longest time to the exit, in seconds; the bar is 10
processor_s_max    longest processor time of one, in seconds: near its time to the exit at rest
late               commands whose first line took longer than a second, or "none"
wrong              commands with another exit code than 2, or that left files, or "none"

Where several processes compete, times say how busy the machine is: look at the load average beside them.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from side_by_side import publish

ROOT = Path(__file__).resolve().parents[1]

COMMANDS = (
    "tran",
    "train agent.nme=sac",
    "train agent=difusion",
    "train experiment=quickstrt",
    "train tasks=[metaworld/reech-v3]",
    "train tasks=[metaworld/reach-v3,dmc/cartpole-swingup]",
    "train agent=sac tasks=[gym/CartPole-v1] gradients=pcgrat",
    "train agent=sac tasks=[gym/CartPole-v1] torso=moor",
    "train agent=sac tasks=[gym/CartPole-v1] steps=-3",
    "train tasks=[point/obstacle] data=nowhere",
    "train tasks=[point/obstacle] --overwrite --resume auto",
    "collect tasks=[gym/CartPole-v1]",
    "collect tasks=mt11",
    "distill nowhere",
    "evaluate nowhere",
    "evaluate expert tasks=[atari/Pong]",
    "evaluate random tasks=[atari/Pog]",
    "watch nowhere",
    "watch random task=gym/CartPol-v1",
    "compare nowhere",
    "export nowhere",
    "deploy nowhere",
    "report nowhere",
    "tasks mt11",
    "doctor tasks=mt11",
)
"""What a user mistypes, or cannot have."""

FIRST_LINE_S, REFUSED_S = 1.0, 10.0


@dataclass(frozen=True)
class Refusal:
    """What one command did."""

    command: str
    first_line_s: float
    refused_s: float
    processor_s: float
    """Processor time until its end: what it would take at rest, however busy the machine is."""
    code: int
    left: list[str]
    """Files and folders that it created."""
    said: str
    """Its last line."""


def refuse(command: str) -> Refusal:
    """Runs one command in an empty folder and takes the times of its first byte and of its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        began, before = time.perf_counter(), _processor_seconds()
        with subprocess.Popen(
            [sys.executable, "-m", "mtrl.launch.main", *command.split()],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder, env=environment,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            first = process.stdout.readline()
            first_line = time.perf_counter() - began
            text = (first + process.stdout.read()).decode()
            code = process.wait()
        refused = time.perf_counter() - began
        used = _processor_seconds() - before
        left = sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))
    return Refusal(command, first_line, refused, used, code, left, (text.splitlines() or [""])[-1])


def _processor_seconds() -> float:
    """Of all processes that this one started and that ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    """Prints the figures and writes them; 1 where a command was accepted or left something."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    refuse("train agent.nme=sac")
    found = [refuse(command) for command in COMMANDS]
    late = [one.command for one in found if one.first_line_s > FIRST_LINE_S]
    wrong = [one.command for one in found if one.code != 2 or one.left]
    for one in found:
        times = f"{one.first_line_s:5.2f} {one.refused_s:6.2f} {one.processor_s:6.2f} s"
        print(f"{times}  {one.code}  mtrl {one.command}\n    {one.said}")
    publish(
        "Commands that refuse",
        {
            "commands": float(len(found)),
            "first_line_s_max": max(one.first_line_s for one in found),
            "refused_s_max": max(one.refused_s for one in found),
            "processor_s_max": max(one.processor_s for one in found),
            "late": "; ".join(late) or "none",
            "wrong": "; ".join(wrong) or "none",
        },
        {"first_line_s_max": f"{FIRST_LINE_S:g}", "refused_s_max": f"{REFUSED_S:g}", "wrong": "none"},
        {"refusals": [asdict(one) for one in found]},
        arguments.json,
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
