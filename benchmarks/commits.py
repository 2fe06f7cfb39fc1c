"""Two commits of this repository: how fast each is, or whether both train the same.

    python benchmarks/commits.py main my-branch --json commits.json
    python benchmarks/commits.py main my-branch --metrics

Both commits are checked out into work trees of their own, which are removed afterwards; yours is left alone.

Speed: each commit's own stepping.py, sac.py and gradients.py take turns, round after round, so that a slow
minute of the machine hits both alike. Figures are shown as the benchmarks give them; every ratio AFTER over
BEFORE is turned so that above 1 is better: the geometric mean over rounds, with a 95% interval (Student's t
of log ratios). Three rounds take about 40 minutes on two CPUs. With --json, what is finished is kept in
FILE.rounds: a run that was stopped continues when it is started again with the same commits. A figure that
only one commit has is named and left out of the mean; benchmarks that changed between the commits are named
too, since their change counts as speed.

--metrics: short trainings at both commits, side by side; every value of metrics.jsonl that both have must be
equal bit for bit, otherwise the first that differs is named. About 2 minutes on two CPUs.

Exit status: 0; 1 where --metrics found a difference or could not compare a run in full; 2 for a comparison
that could not be made or finished; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from two_commits import RUNS, SCRIPTS, CommitError, compare_metrics, compare_speed, sides_of, write_json

ROOT = Path(__file__).resolve().parents[1]


def main(words: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Compares two commits of the repository at `root`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", metavar="BEFORE", help="a hash, branch or tag")
    parser.add_argument("after", metavar="AFTER", help="the one compared with it")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures here, and keep rounds next to it"
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns of every benchmark (3)")
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        metavar="NAME,...",
        help=f"of {','.join(SCRIPTS)}; with --metrics of {','.join(RUNS)}",
    )
    parser.add_argument("--metrics", action="store_true", help="compare what is learned instead of how fast")
    parser.add_argument(
        "--work",
        type=Path,
        metavar="FOLDER",
        help="where the work trees are made for the time being (the system's temporary folder)",
    )
    arguments = parser.parse_args(words)
    names = tuple(RUNS if arguments.metrics else SCRIPTS)
    if unknown := [name for name in arguments.only or () if name not in names]:
        parser.error(f"--only {','.join(unknown)}: expected some of {','.join(names)}")
    if arguments.rounds < 1:
        parser.error(f"--rounds {arguments.rounds}: expected at least 1")
    chosen = [name for name in names if name in (arguments.only or names)]
    # Programs inherit an ignored Ctrl-C, as a shell's background jobs have it, and could not be stopped.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    console = Console()
    try:
        with sides_of(root, arguments.before, arguments.after, arguments.work) as sides:
            if not arguments.metrics:
                compare_speed(sides, chosen, arguments.rounds, arguments.json, console)
                return 0
            outcomes = compare_metrics(sides, chosen, console)
            if arguments.json is not None:
                record = {name: asdict(outcome) for name, outcome in outcomes.items()}
                write_json(arguments.json, {side.name: side.commit for side in sides} | {"runs": record})
            return 0 if all(outcome.equal for outcome in outcomes.values()) else 1
    except CommitError as error:
        print(f"commits: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        rounds = arguments.json is not None and not arguments.metrics
        kept = f"; {arguments.json}.rounds keeps what is finished" if rounds else ""
        print(f"\ncommits: interrupted{kept}; run the same command again", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
