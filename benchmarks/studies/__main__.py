"""`python -m benchmarks.studies [NAME...]`: runs what is missing and draws the pages; `make results`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mtrl.errors import MtrlError, UnknownNameError

from . import any_teacher, gradient_surgery, imitation, policy_gradients, sac, units, world_model
from .record import Study
from .runner import draw_study, missing, run_studies

STUDIES = {
    study.name: study
    for study in (
        imitation.STUDY,
        sac.MIXED,
        sac.EVERYTHING,
        sac.DEFAULTS,
        gradient_surgery.CONFLICT,
        gradient_surgery.STUDY,
        units.STUDY,
        world_model.MIXED,
        world_model.ATARI,
        *world_model.EFFICIENCY,
        *world_model.EXPERTS,
        *policy_gradients.PEERS,
        policy_gradients.METAWORLD4,
        policy_gradients.CLASSIC,
        policy_gradients.LEVERS,
        any_teacher.TEACHERS,
    )
}
"""Every study by name."""

RESULTS = Path("docs") / "results"


def main(words: list[str] | None = None) -> int:
    """0 when all is there, 2 after a failure, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(STUDIES)}; all by default")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side (2)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results (docs/results)")
    parser.add_argument("--only", nargs="+", default=[], metavar="VARIANT", help="run these variants now")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--list", action="store_true", help="say what is missing, run nothing")
    choice.add_argument("--draw", action="store_true", help="redraw the pages, run nothing")
    arguments = parser.parse_args(words)
    try:
        chosen = [_study(name) for name in arguments.names or STUDIES]
        if arguments.list:
            for study in chosen:
                for variant, seed in missing(study, arguments.results):
                    print(study.command(variant, seed))
        elif arguments.draw:
            for study in chosen:
                draw_study(study, arguments.results)
        else:
            arguments.results.mkdir(parents=True, exist_ok=True)
            jobs = max(1, arguments.jobs)
            run_studies(chosen, arguments.results, jobs=jobs, only=arguments.only)
    except MtrlError as problem:
        print(f"studies: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstudies: interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    return 0


def _study(name: str) -> Study:
    if name not in STUDIES:
        raise UnknownNameError("study", name, STUDIES)
    return STUDIES[name]


if __name__ == "__main__":
    sys.exit(main())
