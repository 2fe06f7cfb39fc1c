"""What the commands that film share: the renderer, the subjects, a bar."""

from __future__ import annotations

import argparse
import contextlib
import ctypes.util
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mtrl import registry
from mtrl.errors import MissingExtraError, UnsupportedError
from mtrl.evaluation import EvaluationResult, PolicyReference
from mtrl.rollout import PolicySnapshot
from mtrl.tasks import MultimodalSuite, Score, Split, TaskSet, split_of, start_id
from mtrl.training import progress
from mtrl.videos import Frame, Recorder, Subject, Video, read_videos, video_name

from .console import say
from .session import Session, load_policy

WATCHED = "watched"
"""Folder, of a run or among the runs, of the films that `mtrl watch` makes where no place is named."""

FrameViewer = Callable[[Frame, int, float], None]
"""Receives each picture, how many frames it lasts, and the frames per second."""


def choose_renderer() -> None:
    """Names OSMesa to the simulators where nothing else can draw: no display, MUJOCO_GL unset, library there.

    They choose when they are imported, so this comes before any of them. Games drawn by SDL get its dummy
    drivers where there is no display, or they complain of the sound card and the screen that are missing.
    """
    if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        for driver in ("SDL_AUDIODRIVER", "SDL_VIDEODRIVER"):
            os.environ.setdefault(driver, "dummy")
    silent = not os.environ.get("MUJOCO_GL") and not os.environ.get("DISPLAY")
    if silent and "mujoco" not in sys.modules and ctypes.util.find_library("OSMesa"):
        os.environ["MUJOCO_GL"] = "osmesa"
        os.environ.setdefault("PYOPENGL_PLATFORM", "osmesa")


def film_all(
    recorder: Recorder,
    subjects: Sequence[Subject],
    chosen: Sequence[int],
    indices: Sequence[int],
    place: Callable[[str], Path],
    *,
    frames: int | None = None,
    on_decision: Callable[[], None] | None = None,
    on_frame: FrameViewer | None = None,
) -> list[Video]:
    """Films every subject on the chosen tasks and start indices; `place` maps a file's name to its path."""
    split = Split[recorder.protocol.split.upper()]
    videos: list[Video] = []
    for k in chosen:
        task = recorder.tasks[k]
        with progress(f"film {task.name}", len(subjects) * len(indices) * task.horizon_decisions) as bar:

            def advance() -> None:
                bar.advance()
                if on_decision is not None:
                    on_decision()

            for subject in subjects:
                for index in indices:
                    path = place(video_name(subject.reference.label, task.name, start_id(split, index)))
                    videos.append(
                        recorder.record(
                            subject, k, index, path, frames=frames, on_decision=advance, on_frame=on_frame
                        )
                    )
    return videos


def print_videos(videos: Sequence[Video], tasks: TaskSet, console: Console) -> None:
    """A line for each: which start, what came of it, and how long it took."""
    for video in videos:
        length = f"{video.decisions} decisions" + ("" if video.whole else ", cut short")
        split, index = split_of(video.start).name.lower(), video.start // len(Split)
        say(
            console,
            f"{video.path}: start {video.start}, {split} start {index}: {outcome_of(video, tasks)}, {length}",
        )


def outcome_of(video: Video, tasks: TaskSet) -> str:
    """Success and return; the normalised score instead where the task has no success rule."""
    score, reached = tasks[tasks.index(video.task)].score, f"return {video.episode_return:.2f}"
    if video.success is not None:
        return f"{'success' if video.success else 'no success'}, {reached}"
    # a part of a return has no score, and a return without a range none either
    if not video.whole or score == Score("return"):
        return reached
    return f"score {100 * score.normalise(video.episode_return, False):.1f}%, {reached}"


def video_count(text: str) -> int:
    """The N of `--video=N`; a word that follows a lone --video is taken for it, and then told so."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"expected a count of films, as in --video=3, got {text!r}; put a lone --video last"
        )
    return int(text)


@dataclass(frozen=True)
class Films:
    """What `mtrl evaluate --video` makes beside its results."""

    folder: Path
    """Where the films go."""
    count: int
    """Starts per task and policy, the first ones of the split; 0: no films."""

    def require_images(self, session: Session) -> None:
        """Raises UnsupportedError, before anything is evaluated, for a task that cannot be drawn."""
        if self.count:
            choose_renderer()
            recorder, reasons = Recorder(session.tasks, session.config.evaluation), {}
            for k, task in enumerate(session.tasks):
                try:
                    recorder.require_images([k])
                except (MissingExtraError, UnsupportedError) as error:
                    reasons[task.name] = str(error)
            if reasons:
                told = "; ".join(dict.fromkeys(reasons.values()))
                raise UnsupportedError(f"{told}. Leave out --video, or these tasks: {', '.join(reasons)}")

    def make(
        self, session: Session, results: Sequence[EvaluationResult], snapshots: Sequence[PolicySnapshot]
    ) -> None:
        """Films every policy that was judged; says so where a film shows another outcome than its result."""
        if not self.count:
            return
        # Workers on Ray would keep the processors from the encoder.
        session.close_rollouts()
        subjects = [
            Subject(result.policy, snapshot) for result, snapshot in zip(results, snapshots, strict=True)
        ]
        count = min(self.count, session.config.evaluation.episodes)
        with contextlib.closing(Recorder(session.tasks, session.config.evaluation)) as recorder:
            videos = film_all(
                recorder,
                subjects,
                range(len(session.tasks)),
                range(count),
                lambda name: self.folder / name,
                on_decision=lambda: session.stop_if_asked("filming"),
            )
        print_videos(videos, session.tasks, session.console)
        judged = {
            (result.policy, episode.task, episode.start): (episode.episode_return, episode.length)
            for result in results
            for episode in result.episodes
        }
        for video in videos:
            seen = (video.episode_return, video.decisions)
            if judged[video.policy, video.task, video.start] != seen:
                session.console.print("[yellow]note:[/yellow] ", end="")
                say(
                    session.console,
                    f"{video.path.name} shows another episode than was judged: rounding differs between "
                    "this machine and the one that evaluated, or evaluation.copies did",
                )


def film_drawn_tasks(session: Session, labels: Sequence[str]) -> list[Video]:
    """One film per policy of the tasks whose paths the report draws, which need no graphics library.

    Films that are there already of these very policies are not made again.
    """
    tasks = session.tasks
    chosen = [k for k, task in enumerate(tasks) if isinstance(registry.suite(task.suite), MultimodalSuite)]
    if not chosen:
        return []
    there = {(video.policy, video.task, video.protocol_hash) for video in read_videos(session.run.videos)}
    made: list[Video] = []
    with contextlib.closing(Recorder(tasks, session.config.evaluation)) as recorder:
        recorder.require_images(chosen)
        for label in labels:
            subject = load_subject(session.policy_place(label), label)
            missing = [
                k for k in chosen if (subject.reference, tasks[k].name, tasks[k].protocol_hash) not in there
            ]
            made += film_all(
                recorder,
                [subject],
                missing,
                (0,),
                lambda name: session.run.videos / name,
                on_decision=lambda: session.stop_if_asked("filming"),
            )
    return made


def load_subject(place: Path, label: str) -> Subject:
    """A kept policy of a run, `place` being its folder."""
    snapshot, identity = load_policy(place)
    return Subject(PolicyReference(label, label, identity, snapshot.version), snapshot)
