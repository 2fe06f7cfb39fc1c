"""`mtrl watch`: a policy at work, as a video or in a window."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mtrl import registry
from mtrl.errors import ConfigError, ExistsError
from mtrl.evaluation import EvaluationConfig, PolicyReference
from mtrl.pipeline import (
    WATCHED,
    artefact_tasks,
    choose_renderer,
    chosen_policies,
    is_artefact,
    is_scripted,
    load_artefact,
    load_subject,
    print_videos,
    record_all,
    require_writable,
    task_set_of,
)
from mtrl.rollout import PolicySnapshot, require_experts
from mtrl.tasks import Split, TaskSet, start_id
from mtrl.training import RunDirectory, own_run, run_around
from mtrl.videos import Recorder, Subject, open_window, video_name

from .arguments import add_json, add_overrides, emit
from .compose import compose
from .reopen import recorded_config

EXAMPLES = (
    "mtrl watch runs/quickstart task=metaworld/reach-v3   into its watched/",
    "mtrl watch runs/quickstart/artefact task=point/obstacle episodes=3 start=10",
    "mtrl watch expert task=metaworld/drawer-open-v3 --frames 60 --out drawer.mp4",
    "mtrl watch random task=atari/Boxing --window",
)


@dataclass(frozen=True)
class _Selection:
    """Tasks and policies of the videos, known before any policy is loaded."""

    tasks: TaskSet
    protocol: EvaluationConfig
    subjects: Callable[[], list[Subject]]
    """Loads the policies."""
    watched: Path
    """Folder of the videos: never that of an evaluation, so that they replace none of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Policy, task, and where the video goes."""
    parser.add_argument("what", type=Path, help="a run's folder, an artefact's folder, or expert or random")
    add_overrides(
        parser, "task=NAME, start=INDEX (0), episodes=N (1), and settings such as evaluation.split=validation"
    )
    parser.add_argument("--policy", action="append", help="label within the run; may be given several times")
    parser.add_argument("--frames", type=int, metavar="N", help="end each video after N images")
    parser.add_argument("--out", type=Path, help="a file ending in .mp4, or a folder (watched/ of the run)")
    parser.add_argument("--overwrite", action="store_true", help="replace videos that are there under --out")
    parser.add_argument("--window", action="store_true", help="show it in a window too, while it is made")
    add_json(parser, "every video's place and outcome")


def run(arguments: argparse.Namespace) -> int:
    """Records; refuses a task that cannot be drawn before any policy is loaded."""
    console = Console(emoji=False)
    words = {key: value for key, _, value in (word.partition("=") for word in arguments.overrides)}
    first, count = _number(words, "start", 0, 0), _number(words, "episodes", 1, 1)
    overrides = [
        word for word in arguments.overrides if word.partition("=")[0] not in ("task", "start", "episodes")
    ]
    selection = _select(arguments, overrides, words.get("task"))
    k = _chosen(selection.tasks, words.get("task"))
    choose_renderer()
    with (
        _owned(arguments.out),
        contextlib.closing(Recorder(selection.tasks, selection.protocol)) as recorder,
    ):
        recorder.require_images([k])
        subjects = selection.subjects()
        split = Split[selection.protocol.split.upper()]
        names = [
            video_name(subject.reference.label, selection.tasks[k].name, start_id(split, index))
            for subject in subjects
            for index in range(first, first + count)
        ]
        place = _place(selection.watched, names, arguments)
        window = open_window(console) if arguments.window else None
        with contextlib.closing(window) if window is not None else contextlib.nullcontext():
            videos = record_all(
                recorder,
                subjects,
                [k],
                range(first, first + count),
                place,
                frames=arguments.frames,
                on_frame=None if window is None else window.show,
            )
    print_videos(videos, selection.tasks, console)
    emit(arguments, [dataclasses.asdict(video) for video in videos])
    return 0


def _select(arguments: argparse.Namespace, overrides: Sequence[str], task: str | None) -> _Selection:
    what: Path = arguments.what
    if is_scripted(what):
        return _scripted(str(what), overrides, task)
    if is_artefact(what):
        return _artefact(what, overrides)
    return _run(what, overrides, arguments.policy)


def _scripted(kind: str, overrides: Sequence[str], task: str | None) -> _Selection:
    chosen = list(overrides) if task is None else [f"tasks=[{task}]", *overrides]
    if task is None and not any(word.startswith("tasks=") for word in overrides):
        raise ConfigError(f"{kind} plays any task; name one, such as task=metaworld/reach-v3")
    config = compose(chosen, command="evaluate")
    tasks = task_set_of(config)
    if kind == "expert":
        require_experts([tasks[_chosen(tasks, task)]])
    # Scripted play does not depend on the other copies, so one copy shows the same episode.
    return _Selection(
        tasks,
        dataclasses.replace(config.evaluation, copies=1),
        lambda: [Subject(PolicyReference(kind, kind, kind, 0), PolicySnapshot(kind))],
        Path(config.output) / WATCHED,
    )


def _artefact(what: Path, overrides: Sequence[str]) -> _Selection:
    config = compose(overrides, command="evaluate")

    def load() -> list[Subject]:
        snapshot, identity = load_artefact(what)
        return [Subject(PolicyReference(f"artefact-{identity[:12]}", "artefact", identity, 0), snapshot)]

    return _Selection(artefact_tasks(what), config.evaluation, load, Path(config.output) / WATCHED)


def _run(what: Path, overrides: Sequence[str], labels: Sequence[str] | None) -> _Selection:
    run = RunDirectory.open(what)
    config = recorded_config(run, overrides, "evaluate")
    # The last label is what the run was made for: the student where there is one.
    chosen = chosen_policies(what, labels)
    recorded = chosen if labels else chosen[-1:]
    tasks = task_set_of(config)
    return _Selection(
        tasks,
        config.evaluation,
        lambda: [load_subject(run.policies / label, label, tasks) for label in recorded],
        run.path / WATCHED,
    )


def _chosen(tasks: TaskSet, name: str | None) -> int:
    """Index of the task to watch."""
    if name is not None and name not in tasks.names and "/" not in name:
        members = registry.named_sets()
        if name in members:
            raise ConfigError(
                f"{name} is a set of tasks, and a video shows one; choose task=NAME among "
                f"{', '.join(members[name].names)}"
            )
    if name is not None:
        return tasks.index(name)
    if len(tasks) > 1:
        raise ConfigError(f"there are {len(tasks)} tasks; name one with task=NAME: {', '.join(tasks.names)}")
    return 0


def _number(words: dict[str, str], key: str, default: int, least: int) -> int:
    text = words.get(key, str(default))
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise ConfigError(f"{key} is a whole number of at least {least}; got {text!r}")
    return int(text)


def _owned(out: Path | None) -> contextlib.AbstractContextManager[None]:
    """The run that `--out` writes into, but for its folder of watched videos; requires a folder elsewhere to
    be writable.
    """
    if out is None:
        return contextlib.nullcontext()
    folder = out.parent if out.suffix == ".mp4" else out
    require_writable(folder)
    run, place = run_around(folder), folder.resolve()
    inside = run is not None and run / WATCHED not in (place, *place.parents)
    return own_run(run) if run is not None and inside else contextlib.nullcontext()


def _place(watched: Path, names: Sequence[str], arguments: argparse.Namespace) -> Callable[[str], Path]:
    """Maps a video's usual name to its path; under --out a file is replaced only by --overwrite.

    The videos in `watched` are all made by this command, and newer ones replace them.
    """
    out: Path | None = arguments.out
    if out is None:
        return lambda name: watched / name
    single = out.suffix == ".mp4"
    if single and len(names) > 1:
        raise ConfigError(f"{len(names)} videos do not fit into one file {out}; give --out a folder")
    there = [path for path in ([out] if single else [out / name for name in names]) if path.exists()]
    if there and not arguments.overwrite:
        found = f"{', '.join(map(str, there))} {'is' if len(there) == 1 else 'are'}"
        raise ExistsError(
            f"{found} already there; pass --overwrite to replace, or choose another place with --out"
        )
    return lambda name: out if single else out / name
