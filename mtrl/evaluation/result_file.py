"""The result file `evaluations/<name>.json`: every episode, the summaries and where they come from."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mtrl.errors import ConfigError, IntegrityError
from mtrl.reading import Json, reading
from mtrl.run_directory import agent_settings
from mtrl.tasks import Score, Split, hash_of_protocol, split_of

from .broken import BrokenEpisode, UnmeasuredTask
from .provenance import Provenance
from .records import Record, read_record, write_record
from .results import EpisodeResult, EvaluationResult, PolicyReference, TaskResult

SCHEMA = "mtrl.evaluation"
SCHEMA_VERSION = 2
READ_VERSIONS = (1, SCHEMA_VERSION)
"""Files of version 1 hold means over other tasks, which are recomputed from their episodes."""


def write_result(path: Path, result: EvaluationResult, *, overwrite: bool = False) -> Path:
    """Writes a result file atomically; equal results give equal bytes.

    Raises:
        ExistsError: the file is there and `overwrite` is False.
    """
    return write_record(path, result_record(result), overwrite=overwrite)


def read_result(path: Path) -> EvaluationResult:
    """Reads a result file and proves that its summaries follow from its episodes.

    Raises:
        ConfigError: there is no such file.
        IntegrityError: truncated, another schema, a field missing or of the wrong type, or a summary
            that the episodes do not give; the message names the file and the field.
    """
    record = read_record(path)
    with reading(path, "a result file of mtrl evaluate"):
        return _proved(record)


def _proved(record: Record) -> EvaluationResult:
    """The result of a file whose summaries follow from its episodes."""
    if record.fields.get("schema") != SCHEMA:
        record.refuse("schema", f'"{SCHEMA}" (is this a result file of mtrl evaluate?)')
    version = record.fields.get("schema_version")
    if version not in READ_VERSIONS:
        read = " or ".join(map(str, READ_VERSIONS))
        record.refuse("schema_version", f"{read}, the versions this mtrl reads; evaluate again")
    result = _read(record)
    rebuilt = result_record(result)
    for name, value in rebuilt.items():
        if version != SCHEMA_VERSION and name in ("schema_version", "mean"):
            continue
        if not _same(record.fields.get(name), value):
            raise IntegrityError(
                f"{record.path}: field {_difference(name, record.fields.get(name), value)} does not follow "
                "from the episodes of the same file; it was edited or truncated: evaluate again"
            )
    return result


@dataclass(frozen=True)
class KeptResult:
    """A result and the file it was read from."""

    path: Path
    result: EvaluationResult


def results_of(run: Path) -> list[tuple[Path, EvaluationResult]]:
    """Every file in `<run>/evaluations` with its result, by name; a run's own policy is called by its agent
    in those of older versions too.

    Raises IntegrityError for a result file that is damaged; the message names it.
    """
    settings = agent_settings(run)
    found = [(path, read_result(path)) for path in sorted((run / "evaluations").glob("*.json"))]
    return [(path, replace(one, policy=one.policy.by_agent(settings))) for path, one in found]


def newest_results(run: Path) -> dict[str, KeptResult]:
    """Label -> the newest result of that policy in `<run>/evaluations`, in the order of the labels.

    The newest is the one made last, of two made in the same second the one whose file name comes last.

    Raises:
        ConfigError: there are none.
        IntegrityError: a result file is damaged; the message names it.
    """
    kept: dict[str, KeptResult] = {}
    for path, result in results_of(run):
        older = kept.get(result.policy.label)
        if older is None or result.provenance.created >= older.result.provenance.created:
            kept[result.policy.label] = KeptResult(path, result)
    if not kept:
        command = shlex.join(["mtrl", "evaluate", str(run)])
        raise ConfigError(f"{run} holds no evaluation; make one with: {command}")
    return dict(sorted(kept.items()))


def result_from_record(record: Json) -> EvaluationResult:
    """The inverse of `result_record`; raises IntegrityError naming a field that does not fit."""
    return _read(Record(Path("evaluation"), "", record))


def _same(came: Json, expected: Json) -> bool:
    """Whether two JSON values agree, numbers up to rounding, which another scipy may do otherwise."""
    if isinstance(came, dict) and isinstance(expected, dict):
        return came.keys() == expected.keys() and all(_same(came[key], expected[key]) for key in came)
    if isinstance(came, list) and isinstance(expected, list):
        return len(came) == len(expected) and all(map(_same, came, expected))
    if isinstance(came, float) and isinstance(expected, float):
        return math.isclose(came, expected, rel_tol=1e-9, abs_tol=1e-12)
    return came == expected


def result_record(result: EvaluationResult) -> dict[str, Json]:
    """The JSON object that stands for a result; what broke is there where something did."""
    provenance = result.provenance
    record: dict[str, Json] = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "policy": policy_record(result.policy),
        "split": result.split.name.lower(),
        "seed": result.seed,
        "confidence": result.confidence,
        "set_hash": result.set_hash,
        "tasks": [_task_record(task) for task in result.tasks],
        "mean": asdict(result.mean),
        "episodes": [asdict(episode) for episode in result.episodes],
        "command": provenance.command,
        "created": provenance.created,
        "hardware": provenance.hardware,
        "commit": provenance.commit,
        "packages": dict(provenance.packages),
    }
    if result.broken:
        record["broken"] = [asdict(episode) for episode in result.broken]
    if result.unmeasured:
        record["unmeasured"] = [_task_record(task) for task in result.unmeasured]
    return record


def policy_record(policy: PolicyReference) -> dict[str, Json]:
    """The JSON object that stands for a policy; without `agent` where there is none, as in older files."""
    return {key: value for key, value in asdict(policy).items() if key != "agent" or value}


def _task_record(task: TaskResult | UnmeasuredTask) -> Json:
    # a file without the protocol's fields is written back as it was
    fields = asdict(task) | {"score": task.score.record()}
    if task.protocol is None:
        del fields["protocol"]
    return fields


def _read(record: Record) -> EvaluationResult:
    policy = record.record("policy")
    confidence = record.number("confidence")
    if not 0.0 < confidence < 1.0:
        record.refuse("confidence", "between 0 and 1")
    splits = {split.name.lower(): split for split in Split}
    if record.text("split") not in splits:
        record.refuse("split", f"one of {', '.join(splits)}")
    episodes = tuple(_read_episode(entry) for entry in record.records("episodes"))
    by_task: dict[str, list[EpisodeResult]] = {}
    for episode in episodes:
        by_task.setdefault(episode.task, []).append(episode)
    tasks = tuple(_read_task(entry, by_task, confidence) for entry in record.records("tasks"))
    if not tasks:
        record.refuse("tasks", "a list of at least one task")
    broken = tuple(
        BrokenEpisode(entry.text("task"), entry.integer("start", minimum=0), entry.text("cause"))
        for entry in (record.records("broken") if "broken" in record else ())
    )
    unmeasured = tuple(
        UnmeasuredTask(
            entry.text("name"), entry.text("protocol_hash"), _read_score(entry), _read_protocol(entry)
        )
        for entry in (record.records("unmeasured") if "unmeasured" in record else ())
    )
    names = [*(task.name for task in tasks), *(task.name for task in unmeasured)]
    if len(set(names)) != len(names):
        raise IntegrityError(f"{record.path}: field tasks names a task twice; evaluate again")
    split = splits[record.text("split")]
    _check_starts(record, "episodes", [task.name for task in tasks], episodes, split)
    _check_broken(record, names, episodes, broken, split)
    return EvaluationResult(
        policy=PolicyReference(
            label=policy.text("label"),
            kind=policy.text("kind"),
            identity=policy.text("identity"),
            version=policy.integer("version", minimum=0),
            agent=policy.text("agent") if "agent" in policy else "",
        ),
        split=split,
        seed=record.integer("seed"),
        confidence=confidence,
        set_hash=record.text("set_hash"),
        tasks=tasks,
        episodes=episodes,
        provenance=Provenance(
            command=record.text("command"),
            created=record.text("created"),
            hardware=record.text("hardware"),
            commit=record.text("commit") if "commit" in record else None,
            packages=record.texts("packages"),
        ),
        broken=broken,
        unmeasured=unmeasured,
    )


def _check_starts(
    record: Record,
    field: str,
    names: list[str],
    episodes: Sequence[EpisodeResult | BrokenEpisode],
    split: Split,
) -> None:
    """Comparing pairs episodes by their place, so a file keeps them by task, then by start, each once."""
    for index, episode in enumerate(episodes):
        if episode.task not in names:
            raise IntegrityError(
                f"{record.path}: field {field}[{index}].task is {episode.task!r}, not in tasks"
            )
        if split_of(episode.start) is not split:
            raise IntegrityError(
                f"{record.path}: field {field}[{index}].start must be a {split.name.lower()} start; got "
                f"{episode.start}, a {split_of(episode.start).name.lower()} start: evaluate again"
            )
    places = {name: index for index, name in enumerate(names)}
    keys = [(places[episode.task], episode.start) for episode in episodes]
    for index in range(1, len(keys)):
        if keys[index] <= keys[index - 1]:
            raise IntegrityError(
                f"{record.path}: field {field}[{index}] must come after the one before by task and start, "
                f"each start once; got start {episodes[index].start} of {episodes[index].task!r} after start "
                f"{episodes[index - 1].start} of {episodes[index - 1].task!r}: evaluate again"
            )


def _check_broken(
    record: Record,
    names: list[str],
    episodes: Sequence[EpisodeResult],
    broken: Sequence[BrokenEpisode],
    split: Split,
) -> None:
    """What broke is of the same tasks and split, and each start broke or was played to its end."""
    places = {name: index for index, name in enumerate(names)}
    order = sorted(broken, key=lambda episode: (places.get(episode.task, -1), episode.start))
    _check_starts(record, "broken", names, order, split)
    both = {(e.task, e.start) for e in episodes} & {(e.task, e.start) for e in broken}
    if both:
        task, start = min(both)
        record.refuse("broken", f"starts that are not in episodes too; start {start} of {task!r} is in both")


def _read_episode(record: Record) -> EpisodeResult:
    with reading(record.path, f"an episode in {record.place}"):
        return EpisodeResult(
            task=record.text("task"),
            start=record.integer("start", minimum=0),
            episode_return=record.number("episode_return"),
            success_any=record.boolean("success_any"),
            success_end=record.boolean("success_end"),
            length=record.integer("length", minimum=1),
            terminated=record.boolean("terminated"),
            truncated=record.boolean("truncated"),
            first_success=record.integer("first_success", minimum=1) if "first_success" in record else None,
        )


def _read_task(
    record: Record, episodes: Mapping[str, Sequence[EpisodeResult]], confidence: float
) -> TaskResult:
    name = record.text("name")
    if name not in episodes:
        raise IntegrityError(f"{record.path}: {record.place}: no episodes of task {name!r}")
    score = _read_score(record)
    with reading(record.path, f"a task in {record.place}"):
        return TaskResult.summarise(
            name, record.text("protocol_hash"), score, episodes[name], confidence, _read_protocol(record)
        )


def _read_score(record: Record) -> Score:
    fields = record.record("score")
    normalised = "is_normalised" in fields and fields.boolean("is_normalised")
    with reading(record.path, f"a score in {record.place}"):
        return Score.from_record(fields.text("kind"), fields.number("low"), fields.number("high"), normalised)


def _read_protocol(record: Record) -> dict[str, Json] | None:
    if "protocol" not in record:
        return None
    fields = record.record("protocol").fields
    if hash_of_protocol(fields) != record.text("protocol_hash"):
        record.refuse("protocol", "the fields that protocol_hash is the hash of; it was edited")
    return fields


def _difference(name: str, came: Json, expected: Json) -> str:
    """The path of the first place where two JSON values differ."""
    if isinstance(came, dict) and isinstance(expected, dict):
        for key in sorted({*came, *expected}):
            if not _same(came.get(key), expected.get(key)):
                return _difference(f"{name}.{key}", came.get(key), expected.get(key))
    if isinstance(came, list) and isinstance(expected, list) and len(came) == len(expected):
        for index, (left, right) in enumerate(zip(came, expected, strict=True)):
            if not _same(left, right):
                return _difference(f"{name}[{index}]", left, right)
    return name
