"""`mtrl evaluate`: policies on fixed starts, paired between policies."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from pathlib import Path

from rich.console import Console

from mtrl import registry
from mtrl.errors import ConfigError, ExistsError
from mtrl.evaluation import (
    EvaluationResult,
    Json,
    PolicyReference,
    print_results,
    read_result,
    require_comparable,
    result_record,
    write_result,
)
from mtrl.pipeline import (
    Config,
    EvaluationVideos,
    Interrupted,
    Session,
    artefact_tasks,
    chosen_policies,
    find_policy,
    is_artefact,
    is_scripted,
    load_artefact,
    load_policy,
    log,
    require_writable,
    session_in,
    task_set_of,
    tasks_stem,
)
from mtrl.results import Results
from mtrl.rollout import HELD_OUT, PolicySnapshot, held_out, require_experts
from mtrl.tasks import TaskSet
from mtrl.training import RunDirectory, own_folder

from .arguments import add_json, add_overrides, emit
from .compose import compose
from .reopen import recorded_config, reopen

EXAMPLES = (
    "mtrl evaluate runs/quickstart                          every policy of a run",
    "mtrl evaluate runs/quickstart --policy student episodes=200 runtime.kind=ray",
    "mtrl evaluate runs/quickstart/artefact episodes=20     an exported controller, through ONNX Runtime",
    "mtrl evaluate runs/quickstart --policy teacher execution.delay=4   as if a plan took four decisions",
    "mtrl evaluate runs/first tasks=[gym/Acrobot-v1]        a task that the policy was not trained on",
    "mtrl evaluate runs/quickstart --video=2                and videos of the first two starts of every task",
)

Chosen = tuple[str, PolicySnapshot, str]
"""Label, policy, and the hash that identifies it."""

OUT_HELP = "folder for the result files (the run's evaluations/; next to the runs for a policy of no run)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of what to evaluate and of the results' folder."""
    parser.add_argument("what", type=Path, help="a run's folder, an artefact's folder, or expert or random")
    add_overrides(parser, "settings, such as episodes=200")
    parser.add_argument("--policy", action="append", help="label within the run; may be given several times")
    parser.add_argument(
        "--as",
        dest="played_as",
        default="",
        metavar="TASK",
        help="the task of its own as which a policy plays those of tasks=, where several have their sizes",
    )
    parser.add_argument("--out", type=Path, help=OUT_HELP)
    parser.add_argument("--overwrite", action="store_true", help="replace a result that is there")
    add_json(parser, "means and tasks of every policy")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write one row per episode as CSV too")
    parser.add_argument(
        "--video",
        nargs="?",
        type=video_count,
        const=1,
        default=0,
        metavar="N",
        help="record videos of the first N starts of every task, one without N; mtrl report shows them",
    )


def run(arguments: argparse.Namespace) -> int:
    """Evaluates, prints one table, writes one result file per policy; 130 after Ctrl-C, before which policies
    that are finished keep their results.
    """
    console, written = Console(emoji=False), list[Path]()
    csv: Path | None = arguments.csv
    if csv is not None and csv.exists() and not arguments.overwrite:
        raise ExistsError(f"{csv} is there already; pass --overwrite to replace it, or name another file")
    try:
        results = _evaluate(arguments, console, written)
    except Interrupted as stopped:
        kept = f"finished: {', '.join(map(str, written))}" if written else "no result was finished"
        log(console, f"{stopped}; {kept}")
        return 130
    emit(arguments, [summary_record(file, result) for file, result in results.items()])
    if csv is not None:
        Results(tuple(results.values())).to_csv(csv, overwrite=True)
        log(console, f"every episode is in {csv}")
    return 0


def summary_record(file: Path, result: EvaluationResult) -> dict[str, Json]:
    """A result file without its episodes, and its place."""
    record = result_record(result)
    assert isinstance(record, dict), "a result is an object"
    return {"file": str(file), **{key: value for key, value in record.items() if key != "episodes"}}


def video_count(text: str) -> int:
    """The N of `--video=N`; refuses a word that follows a lone --video."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"expected a count of videos, as in --video=3, got {text!r}; put a lone --video last"
        )
    return int(text)


def _evaluate(
    arguments: argparse.Namespace, console: Console, written: list[Path]
) -> dict[Path, EvaluationResult]:
    """Policies of no run have their results in --out, or in evaluations/ among the runs."""
    what: Path = arguments.what
    if not is_scripted(what) and any(_names_tasks(word) for word in arguments.overrides):
        return _evaluate_held_out(arguments, console, written)
    if arguments.played_as:
        raise ConfigError("--as says as which task others are played; name those with tasks=")
    if not is_scripted(what) and not is_artefact(what):
        # with results elsewhere the run is only read, unless its videos are made
        places = [arguments.out, *([what] if arguments.video else [])] if arguments.out else []
        with reopen(what, arguments.overrides, "evaluate", console, written=places) as session:
            labels = chosen_policies(what, arguments.policy)
            chosen = [(label, *load_policy(session.run.policies / label, session.tasks)) for label in labels]
            place = arguments.out or session.run.evaluations
            videos = EvaluationVideos(session.run.videos, arguments.video)
            return _measure(session, chosen, place, arguments.overwrite, videos, written)
    config = compose(arguments.overrides, command="evaluate")
    tasks, one = _scripted(str(what), config) if is_scripted(what) else _artefact(what)
    place = arguments.out or Path(config.output) / "evaluations"
    videos = EvaluationVideos((arguments.out or Path(config.output)) / "videos", arguments.video)
    with (
        own_folder(place),
        own_folder(videos.folder) if videos.count else contextlib.nullcontext(),
        session_in(RunDirectory(place), config, tasks, console) as session,
    ):
        return _measure(session, [one], place, arguments.overwrite, videos, written)


def _names_tasks(word: str) -> bool:
    return word.partition("=")[0].split(".")[0] == "tasks"


def _evaluate_held_out(
    arguments: argparse.Namespace, console: Console, written: list[Path]
) -> dict[Path, EvaluationResult]:
    """Policies on tasks that they were not trained on; results lie in a folder of those tasks, beside which
    the run's own are left alone.
    """
    what: Path = arguments.what
    given = [word for word in arguments.overrides if _names_tasks(word)]
    others = [word for word in arguments.overrides if word not in given]
    wanted = compose(given, command="evaluate").tasks
    tasks = registry.task_set(list(wanted.names), wanted.options)
    if is_artefact(what):
        texts, base = {"artefact": str(what)}, Path("runs") / "evaluations"
        config = compose(others, command="evaluate")
    else:
        run = RunDirectory.open(what)
        texts = {label: f"{label}@{what}" for label in chosen_policies(what, arguments.policy)}
        config, base = recorded_config(run, others, "evaluate"), run.evaluations
    config = dataclasses.replace(config, tasks=wanted)
    chosen: list[Chosen] = []
    for label, text in texts.items():
        found = find_policy(text)
        own = found.task_set()
        snapshot, identity = found.load(own)
        named = (found.tasks.names, found.tasks.options)
        one = held_out(snapshot, own, named, tasks, arguments.played_as)
        shown = PolicyReference(label, label, "", 0).by_agent(config.agent).shown
        for task, row in zip(tasks, one.config["rows"], strict=True):
            log(console, f"held out: {shown} plays {task.name} as {own.names[row]}")
        chosen.append((f"{label}-{HELD_OUT}", one, identity))
    place = (arguments.out or base) / f"{HELD_OUT}-{tasks_stem(wanted.names)}"
    videos = EvaluationVideos(place / "videos", arguments.video)
    with own_folder(place), session_in(RunDirectory(place), config, tasks, console) as session:
        return _measure(session, chosen, place, arguments.overwrite, videos, written)


def _scripted(kind: str, config: Config) -> tuple[TaskSet, Chosen]:
    tasks = task_set_of(config)
    if kind == "expert":
        require_experts(tasks)
    return tasks, (kind, PolicySnapshot(kind), kind)


def _artefact(what: Path) -> tuple[TaskSet, Chosen]:
    snapshot, identity = load_artefact(what)
    # Artefacts share a folder of results, so that each is called by its own hash.
    return artefact_tasks(what), (f"artefact-{identity[:12]}", snapshot, identity)


def _measure(
    session: Session,
    chosen: list[Chosen],
    place: Path,
    overwrite: bool,
    videos: EvaluationVideos,
    written: list[Path],
) -> dict[Path, EvaluationResult]:
    """File -> result; `written` receives each file as soon as it is there."""
    protocol = session.config.evaluation
    chosen = [
        (*protocol.execution.applied(label, snapshot), identity) for label, snapshot, identity in chosen
    ]
    prior = "" if protocol.plan else "-prior"
    files = {
        label: place
        / f"{label}-{snapshot.version}-{protocol.split}{protocol.episodes}-seed{protocol.seed}{prior}.json"
        for label, snapshot, _ in chosen
    }
    kept = {} if overwrite or not videos.count else _evaluated_before(session, chosen, files)
    there = [file for label, file in files.items() if file.exists() and label not in kept]
    if there and not overwrite:
        raise ExistsError(
            f"already there: {', '.join(map(str, there))}; "
            "pass --overwrite to replace, or choose another place with --out"
        )
    require_writable(place)
    videos.require_images(session)
    for label in kept:
        session.log(f"{label} is not evaluated again, its result is there: {files[label]}")
    place.mkdir(parents=True, exist_ok=True)
    results: list[EvaluationResult] = []
    for label, snapshot, identity in chosen:
        if label in kept:
            results.append(kept[label])
            continue
        kind = HELD_OUT if snapshot.kind == "held_out" else ""
        result = session.evaluate(snapshot, label, identity, kind=kind)
        for other in results:
            require_comparable(other, result)
        results.append(result)
        written.append(write_result(files[label], result, overwrite=overwrite))
    print_results(results, session.console)
    session.log(f"results are in {place}")
    videos.make(session, results, [snapshot for _, snapshot, _ in chosen])
    return dict(zip(files.values(), results, strict=True))


def _evaluated_before(
    session: Session, chosen: list[Chosen], files: dict[str, Path]
) -> dict[str, EvaluationResult]:
    """Label -> the result that is there of this very policy on these very tasks, to be recorded only."""
    protocols = {task.name: task.protocol_hash for task in session.tasks}
    found = {}
    for label, snapshot, identity in chosen:
        if not files[label].exists():
            continue
        result = read_result(files[label])
        same_policy = (result.policy.identity, result.policy.version) == (identity, snapshot.version)
        if same_policy and {task.name: task.protocol_hash for task in result.tasks} == protocols:
            found[label] = result
    return found
