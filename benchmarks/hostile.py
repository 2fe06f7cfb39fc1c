"""What a command costs that is given a file which asks for unbounded work.

    python benchmarks/hostile.py --json hostile.json

Each attack of `attacks.py` is refused in a process of its own. Figures, the largest over all attacks:

seconds_max        from the end of the imports to the refusal, the processes that it starts included
processor_seconds_max  the same in processor time, which a busy machine does not stretch
megabytes_max      largest resident memory of the command and all processes that it starts, read every 5 ms
refused            share of the attacks that end with status 2 and a last line that names the file; 1 is all
command_megabytes  for comparison, the same command's memory for a run that does not exist
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from robot_faults.attacks import ATTACKS, Words
from side_by_side import publish

BARS = {"seconds_max": "<= 2", "megabytes_max": "<= 500", "refused": "1"}
PAGE = os.sysconf("SC_PAGE_SIZE")
_IMPORTS = {"train": "mtrl.launch.train, torch._dynamo"}
"""What a command imports, which is not measured; torch imports the second for its first optimiser."""
_PROGRAM = """
import json, resource, sys, time
import {imports}
from mtrl.launch.main import main
def processor():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
before, began = processor(), time.perf_counter()
status = main(json.loads(sys.argv[1]))
print(json.dumps([status, time.perf_counter() - began, processor() - before]))
"""


def measure(words: Words) -> tuple[int, float, float, float, str]:
    """Exit status, seconds, seconds of processor time, megabytes and the error's text of one command."""
    command = [
        sys.executable,
        "-c",
        _PROGRAM.format(imports=_IMPORTS.get(words[0], f"mtrl.launch.{words[0]}")),
        json.dumps(words),
    ]
    peak = 0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors)
        while process.poll() is None:
            peak = max(peak, sum(map(_resident, _family(process.pid))))
            time.sleep(0.005)
        out.seek(0)
        errors.seek(0)
        said, answer = errors.read(), out.read().splitlines()
    if process.returncode != 0:
        return process.returncode, float("inf"), float("inf"), peak / 2**20, said
    status, seconds, processor = json.loads(answer[-1])
    return status, seconds, processor, peak / 2**20, said


def _family(process: int) -> list[int]:
    """A process and all that it started."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
    except OSError:
        return []
    # a child that has not become another program yet shares its parent's memory
    apart = [int(child) for child in children if _program(int(child)) != _program(process)]
    return [process, *(other for child in apart for other in _family(child))]


def _program(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def _resident(process: int) -> int:
    """Bytes of a process in memory; 0 for one that has ended."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def main() -> None:
    """Opens every attack once."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--only", choices=sorted(ATTACKS), action="append", help="attacks to open (all)")
    arguments = parser.parse_args()
    details, refused = {}, []
    for name in arguments.only or ATTACKS:
        with tempfile.TemporaryDirectory() as folder:
            words = ATTACKS[name](Path(folder))
            status, seconds, processor, megabytes, said = measure(words)
        lines = said.strip().splitlines()
        refused.append(status == 2 and "Traceback" not in said and folder in lines[-1])
        details[name] = {
            "seconds": seconds, "processor": processor, "megabytes": megabytes, "refused": refused[-1],
        }  # fmt: skip
        last = lines[-1] if lines else "no message"
        print(
            f"{name}: {seconds:.2f} s, {processor:.2f} s of processor time, {megabytes:.0f} MB, {last}",
            flush=True,
        )
    *_, base, _ = measure(["evaluate", "/nowhere"])
    figures = {
        "seconds_max": max(found["seconds"] for found in details.values()),
        "processor_seconds_max": max(found["processor"] for found in details.values()),
        "megabytes_max": max(found["megabytes"] for found in details.values()),
        "refused": sum(refused) / len(refused),
        "command_megabytes": base,
    }
    publish("Files that ask for unbounded work", figures, BARS, details, arguments.json)


if __name__ == "__main__":
    main()
