"""A study, and the committed file that its finished runs are kept in."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import Path

from mtrl.errors import MtrlError
from mtrl.evaluation import EvaluationResult, Json, left_out, read_json, read_result, write_record
from mtrl.tasks import Score, start_id
from mtrl.training import read_jsonl

from .meter import processor_curve

SCHEMA = "mtrl.study"
SCHEMA_VERSION = 1

RUNS = Path("runs") / "studies"
"""Where runs of studies lie while they are made, below the folder that the studies are started in."""

REFERENCES = "reference-policies"
"""Variant that trains nothing: it judges `random` and the best constant actions; see that module."""


class StudyError(MtrlError):
    """A study whose file does not belong to it, or a run that failed."""


@dataclass(frozen=True)
class Study:
    """A question, and the trainings that answer it."""

    name: str
    """Name of its files: docs/results/<name>.json and <name>.md."""
    question: str
    """Its question, in a sentence or two; printed above its tables."""
    shared: tuple[str, ...]
    """Settings of every run, as `mtrl train` takes them."""
    variants: Mapping[str, tuple[str, ...]]
    """Variant -> settings in which it differs; a single one without any for a study of seeds alone."""
    seeds: tuple[int, ...]
    """Seeds of every variant."""
    methods: Mapping[str, tuple[str, str]]
    """Column of the table -> (variant, label of the policy), the reference first."""
    references: bool = False
    """Whether uniformly random play and the best constant actions are judged on the same starts, once; a
    column of the table takes them as ("reference-policies", "random") or (..., "constant")."""
    equal_cost: tuple[str, str] | None = None
    """Two columns of the table to compare again when both have taken the same steps, and when both have cost
    the same CPU time; their runs evaluate while they learn (`online.evaluate_every`)."""
    units: Mapping[str, tuple[str, float, Score]] = field(default_factory=dict)
    """Task in a unit of its own -> (its name in the tables, what its rewards are multiplied by, the range of
    its returns before that)."""

    def runs(self) -> tuple[tuple[str, int], ...]:
        """(variant, seed) of every run, seed after seed, so that an early stop leaves whole seeds."""
        trained = tuple((variant, seed) for seed in self.seeds for variant in self.variants)
        return ((REFERENCES, 0), *trained) if self.references else trained

    def key(self, variant: str, seed: int) -> str:
        """Name of a run, of its folder and of its entry in the file."""
        return REFERENCES if variant == REFERENCES else f"{variant}-seed{seed}"

    def keys(self, variant: str) -> list[str]:
        """Names of all runs of a variant."""
        return [self.key(variant, seed) for seed in ((0,) if variant == REFERENCES else self.seeds)]

    def words(self, variant: str, seed: int) -> list[str]:
        """Arguments of `mtrl` that make a run; the same ones continue it where it stopped.

        Those of the reference policies are for `python -m benchmarks.studies.reference_policies`.
        """
        if variant == REFERENCES:
            named = [f"name={self.key(variant, seed)}", f"output={RUNS / self.name}"]
            return [*self.shared, "runtime=local", "training.threads=1", f"seed={seed}", *named]
        return [
            "train",
            *self.shared,
            *self.variants[variant],
            "runtime=local",
            "training.threads=1",
            f"seed={seed}",
            f"name={self.key(variant, seed)}",
            f"output={RUNS / self.name}",
            "--resume",
            "auto",
        ]

    def command(self, variant: str, seed: int) -> str:
        """The command line of a run, quoted for a shell."""
        module = ["python", "-m", "benchmarks.studies.reference_policies"]
        return shlex.join([*(module if variant == REFERENCES else ["mtrl"]), *self.words(variant, seed)])


@dataclass(frozen=True)
class TaskOutcome:
    """One policy on the starts of one task."""

    protocol_hash: str
    score: Score
    outcomes: str = ""
    """For a task judged by success: "1" or "0" per start, in the order of the starts."""
    returns: tuple[float, ...] = ()
    """For a task judged by its return: the return on each start."""

    @property
    def mean_score(self) -> float:
        """Mean normalised score."""
        if self.score.kind == "success":
            return self.outcomes.count("1") / len(self.outcomes)
        return sum(self.score.normalise(value, False) for value in self.returns) / len(self.returns)

    def divided(self, unit: float, score: Score) -> TaskOutcome:
        """The same with returns in multiples of `unit`, for which `score` gives the range."""
        return replace(self, returns=tuple(value / unit for value in self.returns), score=score)


@dataclass(frozen=True)
class Finished:
    """What is kept of a finished run."""

    command: str
    """The command line that made it."""
    seed: int
    minutes: float
    """Wall-clock time of all its sessions, minutes; two runs shared the machine."""
    created: str
    """When its last policy was judged, UTC."""
    commit: str | None
    hardware: str
    packages: Mapping[str, str]
    split: str
    """Family of starts; outcome i is that of start i of this family."""
    policies: Mapping[str, Mapping[str, TaskOutcome]]
    """Label -> task -> outcomes."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Numbers of the run's summary, such as `point_modes_kept`, and means of its metrics."""
    curve: Sequence[Mapping[str, float]] = ()
    """One entry per evaluation while learning: `step`, CPU `minutes` of learning and collecting until
    then, and the metrics `evaluation_return/TASK` and `evaluation_success/TASK`."""
    cosines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Part ("critic", "actor") -> "TASK | TASK" -> mean cosine between the tasks' gradients over the second
    half of the run; empty where none were measured."""

    @staticmethod
    def collect(run: Path, command: str, seed: int, commit: str | None) -> Finished:
        """Reads a finished run's folder; `commit` is what the run was made by.

        Raises:
            MtrlError: no evaluation there, a damaged one, or one on starts that do not begin with the first.
        """
        results = [read_result(path) for path in sorted((run / "evaluations").glob("*.json"))]
        if not results:
            raise StudyError(f"{run} holds no evaluation; let its stages contain evaluate")
        summary = read_json(run / "summary.json")
        assert isinstance(summary, dict), "a summary is an object"
        numbers = {k: float(v) for k, v in summary.items() if isinstance(v, int | float)}
        records = read_jsonl(run / "metrics.jsonl") if (run / "metrics.jsonl").exists() else []
        minutes, curve = processor_curve(run.with_name(f"{run.name}.processor.jsonl"), records)
        numbers |= {"processor_minutes": minutes} if minutes else {}
        last = max((result.provenance for result in results), key=lambda origin: origin.created)
        return Finished(
            command=command,
            seed=seed,
            minutes=round(numbers.pop("wall_seconds") / 60.0, 2),
            created=last.created,
            commit=commit,
            hardware=last.hardware,
            packages=dict(last.packages),
            split=results[0].split.name.lower(),
            policies={result.policy.label: _outcomes(result) for result in results},
            figures=numbers,
            curve=curve,
            cosines=_cosines(run / "cosines.jsonl"),
        )


def write_finished(path: Path, study: str, finished: Mapping[str, Finished]) -> Path:
    """Writes a study's file whole or not at all; equal contents give equal bytes."""
    runs: dict[str, Json] = {key: _record(run) for key, run in finished.items()}
    record: Json = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "study": study, "runs": runs}
    return write_record(path, record, overwrite=True)


def read_finished(path: Path, study: str) -> dict[str, Finished]:
    """Run -> what was kept of it; empty without a file.

    Raises:
        StudyError: a file of another study or version, or one that lacks a field.
        IntegrityError: no valid JSON.
    """
    if not path.exists():
        return {}
    record = read_json(path)
    expected = (SCHEMA, SCHEMA_VERSION, study)
    if not isinstance(record, dict) or expected != (
        record.get("schema"),
        record.get("schema_version"),
        record.get("study"),
    ):
        raise StudyError(f"{path} is not the file of study {study!r}, version {SCHEMA_VERSION}; move it away")
    runs = record.get("runs")
    try:
        assert isinstance(runs, dict)
        return {key: _finished(run) for key, run in runs.items()}
    except (AssertionError, KeyError, TypeError, ValueError) as problem:
        raise StudyError(f"{path} was edited or truncated ({problem}); restore it with git") from problem


def _finished(record: Json) -> Finished:
    assert isinstance(record, dict), "a run must be an object"
    fields: dict[str, object] = dict(record)
    policies = record["policies"]
    assert isinstance(policies, dict), "policies must be an object"
    fields["policies"] = {label: _tasks(tasks) for label, tasks in policies.items()}
    # mypy cannot see that the file holds what `asdict` wrote; a wrong field is a TypeError
    return Finished(**fields)  # type: ignore[arg-type]


def _tasks(record: Json) -> dict[str, TaskOutcome]:
    assert isinstance(record, dict), "a policy must be an object"
    found = {}
    for name, entry in record.items():
        assert isinstance(entry, dict), f"{name} must be an object"
        score, returns = entry["score"], entry["returns"]
        assert isinstance(score, dict) and isinstance(returns, list), f"{name} has no score or no returns"
        found[name] = TaskOutcome(
            protocol_hash=str(entry["protocol_hash"]),
            score=Score.from_record(**score),  # type: ignore[arg-type]
            outcomes=str(entry["outcomes"]),
            returns=tuple(float(str(value)) for value in returns),
        )
    return found


def _cosines(path: Path) -> dict[str, dict[str, float]]:
    """What `CosineTracker` wrote, averaged over the second half of its lines."""
    parts: dict[str, list[dict[str, float]]] = {}
    for record in read_jsonl(path) if path.exists() else []:
        pairs = combinations(range(len(record["tasks"])), 2)
        names, rows = record["tasks"], record["cosines"]
        found = {f"{names[a]} | {names[b]}": rows[a][b] for a, b in pairs if rows[a][b] is not None}
        parts.setdefault(str(record["part"]), []).append(found)
    means: dict[str, dict[str, float]] = {}
    for part, lines in parts.items():
        half = lines[len(lines) // 2 :]
        measured = {pair: [line[pair] for line in half if pair in line] for line in half for pair in line}
        means[part] = {pair: round(sum(v) / len(v), 4) for pair, v in measured.items()}
    return means


def _outcomes(result: EvaluationResult) -> dict[str, TaskOutcome]:
    if result.broken:
        raise StudyError(f"episodes broke, and a study keeps whole evaluations: {left_out(result.broken)}")
    found = {}
    for task in result.tasks:
        episodes = result.task_episodes(task.name)
        starts = [episode.start for episode in episodes]
        if starts != [start_id(result.split, index) for index in range(len(starts))]:
            raise StudyError(
                f"{task.name}: a study keeps outcomes of the first starts only; got {starts[:5]}"
            )
        judged = task.score.kind == "success"
        found[task.name] = TaskOutcome(
            protocol_hash=task.protocol_hash,
            score=task.score,
            outcomes="".join("1" if episode.success_any else "0" for episode in episodes) if judged else "",
            returns=() if judged else tuple(episode.episode_return for episode in episodes),
        )
    return found


def _record(run: Finished) -> Json:
    fields = asdict(run)
    for label, tasks in run.policies.items():
        for name, outcome in tasks.items():
            fields["policies"][label][name]["score"] = outcome.score.record()
    return _plain(fields)


def _plain(value: object) -> Json:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    assert value is None or isinstance(value, bool | int | float | str), "asdict leaves nothing else"
    return value
