"""Whether two commits train the same: short runs at both, their metrics.jsonl compared bit for bit."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from rich.console import Console

from .trees import CommitError, Program, Side

METRICS, STEP = "metrics.jsonl", "step"
REJECTED = 2
"""Exit status of `mtrl` for unknown settings."""
Record = Mapping[str, object]

COMMON = ("seed=1", "runtime=local", "tracking=files", "training.threads=1")
SAC = (
    "agent=sac",
    "tasks=[dmc/reacher-easy,gym/CartPole-v1,metaworld/reach-v3]",
    "stages=[train]",
    "steps=3000",
    "online.warmup=600",
    "online.log_every=200",
    "online.evaluate_every=1500",
    "evaluation.episodes=1",
    "collection.copies=2",
    "collection.steps=16",
    "agent.network.torso.width=64",
    "agent.batch_size=16",
)
RUNS: dict[str, tuple[str | tuple[str, ...], ...]] = {
    "sac": SAC,
    # one backward pass and a loop round differently, and which is taken depends on the clock
    "sac_pcgrad": (
        *SAC,
        "gradients=pcgrad",
        "gradients.part=both",
        ("gradients.row_method=backward", "gradients.way=backward"),
    ),
    "diffusion": (
        "agent=diffusion",
        "tasks=[point/obstacle,metaworld/reach-v3]",
        "stages=[collect,train,clone,distill]",
        "demonstrations.episodes=4",
        "demonstrations.job_episodes=4",
        "agent.network.width=64",
        "agent.network.blocks=2",
        "agent.batch_size=64",
        "training.updates=300",
        "training.log_every=25",
        "cloning.updates=200",
        "distillation.network.width=64",
        "distillation.network.blocks=2",
        "distillation.batch_size=64",
        "distillation.updates=200",
    ),
    "sb3": (
        "agent=sb3",
        "agent.algorithm=ppo",
        "agent.device=cpu",
        "tasks=[gym/CartPole-v1]",
        "stages=[train]",
        "steps=6000",
        "online.log_every=500",
    ),
}
"""Name -> settings of `mtrl train` beside `COMMON`. A setting that commits spell differently is a tuple of
its spellings, newest first; every commit takes the first that it accepts."""


@dataclass(frozen=True)
class Outcome:
    """What a run at both commits came to."""

    values: int = 0
    """Values that both have, the step of a record among them."""
    difference: str = ""
    """Where the first differing value stands and what it is at both; empty where all are equal."""
    differing: int = 0
    """Values that differ."""
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """before or after -> the keys that only it has."""
    problem: str = ""
    """Why the records cannot be compared in full: a run failed, a file or records are missing."""

    @property
    def equal(self) -> bool:
        """Whether everything was compared and nothing differs."""
        return not self.problem and not self.difference


def compare_metrics(sides: Sequence[Side], names: Sequence[str], console: Console) -> dict[str, Outcome]:
    """Trains the named `RUNS` at both commits side by side, one thread each, and compares them."""
    outcomes: dict[str, Outcome] = {}
    for position, name in enumerate(names, start=1):
        began = time.monotonic()
        console.print(f"{name}: {position} of {len(names)}, about a minute", highlight=False)
        try:
            before, after = train_both(sides, name)
        except CommitError as error:
            outcomes[name] = Outcome(problem=str(error))
        else:
            outcomes[name] = compare_runs(before, after)
        for line in describe(name, outcomes[name]):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print(f"{name}: {time.monotonic() - began:.0f} s", highlight=False)
    return outcomes


def describe(name: str, outcome: Outcome) -> list[str]:
    """Lines for a person."""
    lines = [f"{name}: {side} alone has {', '.join(keys)}" for side, keys in outcome.only.items() if keys]
    if outcome.problem:
        lines.append(f"{name}: NOT COMPARED IN FULL: {outcome.problem}")
    if outcome.difference:
        lines.append(f"{name}: DIFFERS in {outcome.differing:,} of {outcome.values:,} values; first")
        lines.append(f"  {outcome.difference}")
    if outcome.equal:
        lines.append(f"{name}: equal, {outcome.values:,} values")
    return lines


def train_both(sides: Sequence[Side], name: str) -> list[Path]:
    """The run's folder at either commit; raises CommitError where a training fails."""
    with ExitStack() as stack:
        spellings = [spelled(RUNS[name]) for _ in sides]
        programs = [
            stack.enter_context(_train(side, name, next(words)))
            for side, words in zip(sides, spellings, strict=True)
        ]
        for position, (side, others) in enumerate(zip(sides, spellings, strict=True)):
            while status := programs[position].wait():
                words = next(others, None) if status == REJECTED else None
                if words is None:
                    raise CommitError(programs[position].failure(status))
                programs[position] = stack.enter_context(_train(side, name, words))
    return [side.scratch / name for side in sides]


def spelled(words: Sequence[str | tuple[str, ...]]) -> Iterator[list[str]]:
    """The settings in all their spellings, those of the first names first."""
    for chosen in product(*((word,) if isinstance(word, str) else word for word in words)):
        yield list(chosen)


def compare_runs(before: Path, after: Path) -> Outcome:
    """Compares every metrics.jsonl below two run folders, record by record.

    A key that one side lacks altogether is named and no more, as is a file that is new; a key that both have
    must have equal values in the same records. Records that one side lacks are a problem.
    """
    old, new = read_records(before), read_records(after)
    problems, only = [], {}
    known = {file for file, _ in old}
    for side, mine, others in (("before", old, new), ("after", new, old)):
        alone = [(file, number) for file, number in mine if (file, number) not in others and file in known]
        if alone:
            file, number = alone[0]
            problems.append(f"{side} alone has {len(alone)} records, first number {number} of {file}")
        only[side] = tuple(sorted(_keys(mine) - _keys(others)))
    common = _keys(old) & _keys(new)
    both = [
        (file, record, new[file, number], key)
        for (file, number), record in old.items()
        if (file, number) in new
        for key in sorted(record.keys() | new[file, number].keys(), key=lambda key: (key != STEP, key))
        if f"{file} {key}" in common
    ]
    differing = [item for item in both if _text(item[1], item[3]) != _text(item[2], item[3])]
    difference = ""
    if differing:
        file, left, right, key = differing[0]
        step = f"{file}, step {_text(left, STEP)}"
        difference = f"{step}, {key}: before {_text(left, key)}, after {_text(right, key)}"
    if not both:
        problems.append(f"no value of {METRICS} is in both runs")
    return Outcome(len(both), difference, len(differing), only, "; ".join(problems))


def read_records(run: Path) -> dict[tuple[str, int], Record]:
    """(file below the run, number of the record from 1) -> record, numbers as floats."""
    return {
        (path.relative_to(run).as_posix(), number): json.loads(line, parse_int=float)
        for path in sorted(run.rglob(METRICS))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    }


def _keys(records: Mapping[tuple[str, int], Record]) -> set[str]:
    return {f"{file} {key}" for (file, _), record in records.items() for key in record}


def _text(record: Record, key: str) -> str:
    # of a float it names the bits: 0.0 and -0.0 differ
    return repr(record[key]) if key in record else "no value"


def _train(side: Side, name: str, words: Sequence[str]) -> Program:
    shutil.rmtree(side.scratch / name, ignore_errors=True)
    settings = (*COMMON, f"output={side.scratch}", f"name={name}", *words)
    threads = {"OMP_NUM_THREADS": "1"}
    return side.start("-m", "mtrl.launch.main", "train", *settings, environment=threads)
