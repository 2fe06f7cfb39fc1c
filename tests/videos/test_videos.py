"""Videos: at the pace of the task, of the episode that was evaluated, whole or not there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from mtrl import registry
from mtrl.errors import (
    ConfigError,
    EnvironmentFault,
    IntegrityError,
    OutOfRangeError,
    ResourceError,
    UnsupportedError,
)
from mtrl.evaluation import EvaluationConfig, PolicyReference, Provenance, evaluate
from mtrl.rollout import JobResult, LocalRollouts, PolicySnapshot, RuntimeConfig
from mtrl.tasks import Score, Task, TaskSet
from mtrl.videos.captions import Moment, captioned
from mtrl.videos.recorder import Recorder, Subject
from mtrl.videos.video_file import Frame, RealTime, VideoFile, frames_per_second
from mtrl.videos.video_record import read_videos, video_name

from ..synthetic import CounterEnvironment, CounterSuite, counter_suite, counter_task

RANDOM = Subject(PolicyReference("random", "random", "f00d", 3), PolicySnapshot("random"))
SHADE = 20
"""A drawn counter is SHADE times brighter after every decision."""


class DrawnCounter(CounterEnvironment):
    """A counter whose image shows which decision it is."""

    def render(self) -> npt.NDArray[np.uint8]:
        if self._task.option("blind_at", -1) == self.t:
            raise RuntimeError("the lens broke")
        return np.full((63, 161, 3), SHADE * self.t, dtype=np.uint8)


class ClockedCounter(DrawnCounter):
    """The same with a clock of its own, which stops the episode after two decisions."""

    @property
    def truncated(self) -> bool:
        return self.t >= 2


@dataclasses.dataclass
class DrawnSuite(CounterSuite):
    """Counters that can be seen."""

    kind: type[CounterEnvironment] = DrawnCounter

    def environment(self, task: Task) -> CounterEnvironment:
        self.built.append(self.kind(task, self))
        return self.built[-1]


@pytest.fixture
def drawn() -> Iterator[DrawnSuite]:
    suite = DrawnSuite()
    registry.register("suite", suite.name, suite)
    yield suite
    registry.unregister("suite", suite.name)


def images(path: Path) -> list[npt.NDArray[np.uint8]]:
    """The frames of a video, RGB."""
    video = cv2.VideoCapture(str(path))
    found = []
    while True:
        there, frame = video.read()
        if not there:
            return found
        found.append(np.asarray(frame[..., ::-1], dtype=np.uint8))


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(80.0, 30), (30.0, 30), (15.0, 15), (20.0, 20), (4.0, 10), (62.5, 30), (12.5, 12.5)],
)
def test_a_video_keeps_the_pace_of_the_task_within_what_players_show(rate: float, expected: float) -> None:
    assert frames_per_second(rate) == Fraction(expected)


def test_images_are_left_out_or_repeated_so_that_time_is_real() -> None:
    def shown(rate: float, decisions: int) -> list[int]:
        clock, frames = RealTime(rate), []
        for decision in range(decisions + 1):
            frames += [decision] * clock.due(decision, len(frames))
        return frames

    # 80 Hz at 30 a second: frame f shows the first decision at or after f * 8 / 3
    assert shown(80.0, 16) == [0, 3, 6, 8, 11, 14, 16]
    assert shown(20.0, 4) == [0, 1, 2, 3, 4]
    # 4 Hz at 10 a second: two and a half frames a decision
    assert shown(4.0, 3) == [0, 1, 1, 2, 2, 2, 3, 3]


def test_a_video_of_so_many_images_ends_with_one() -> None:
    for rate in (80.0, 62.5, 30.0, 20.0):
        clock = RealTime(rate)
        for frames in (2, 3, 10, 31):
            last = clock.last_decision(frames)
            assert clock.due(last, frames - 1) == 1
            assert clock.due(last - 1, frames - 1) == 0


def test_a_caption_says_what_happened_and_the_image_stays_above_it() -> None:
    moment = Moment("student", "metaworld/reach-v3", 500, 5, 37, -0.25, 12.5, False, True)
    assert moment.lines == (
        "student  metaworld/reach-v3  start 5",
        "37/500  reward -0.250  return 12.50  succeeded",
    )
    assert dataclasses.replace(moment, success=True).lines[1].endswith("SUCCESS")
    image = np.random.default_rng(0).integers(0, 255, (63, 161, 3), dtype=np.uint8)
    whole = captioned(image, moment)
    # 161 columns are doubled to reach 320
    assert whole.shape[0] % 2 == whole.shape[1] % 2 == 0
    np.testing.assert_array_equal(whole[0:126:2, 0:322:2], image)
    below = whole[126:]
    other = captioned(image, dataclasses.replace(moment, decision=38))[126:]
    assert (below != other).any()
    assert len(np.unique(below.reshape(-1, 3), axis=0)) > 2


def test_a_long_caption_fits_the_image() -> None:
    moment = Moment("a" * 30, "b" * 60, 2, 5, 1, 0.0, 0.0, False, False)
    whole = captioned(np.zeros((100, 320, 3), dtype=np.uint8), moment)
    assert (whole[100:, -6:] == whole[-1, -1]).all(), "nothing reaches the right margin"


def test_a_video_shows_every_decision_and_its_record_reads_back(drawn: DrawnSuite, tmp_path: Path) -> None:
    tasks = TaskSet([counter_task(horizon=6, success_at=4)])
    recorder = Recorder(tasks, EvaluationConfig(episodes=5, copies=2))
    path = tmp_path / "videos" / video_name("random", "counter/short", 8)
    seen: list[tuple[int, int, float]] = []
    calls: list[int] = []
    video = recorder.record(
        RANDOM,
        0,
        2,
        path,
        on_decision=lambda: calls.append(1),
        on_frame=lambda frame, times, rate: seen.append((int(frame[0, 0, 0]), times, rate)),
    )
    recorder.close()
    # 20 decisions a second, one image each, and the first observation
    assert [round(frame[20, 20].mean() / SHADE) for frame in images(path)] == [0, 1, 2, 3, 4, 5, 6]
    assert seen == [(SHADE * t, 1, 20.0) for t in range(7)]
    # two copies played side by side; the hook is called once per decision of the lane
    assert len(calls) == 6
    assert (video.start, video.decisions, video.frames, video.frames_per_second) == (8, 6, 7, 20.0)
    assert video.success and video.whole
    assert video.episode_return == 21.0
    assert video.poster.read_bytes().startswith(b"\xff\xd8")
    assert read_videos(path.parent) == (video,)
    assert sorted(p.suffix for p in path.parent.iterdir()) == [".jpg", ".json", ".mp4"]
    assert all(environment.closed for environment in drawn.built)


def test_a_video_says_nothing_of_success_where_no_rule_decides_it(drawn: DrawnSuite, tmp_path: Path) -> None:
    task = dataclasses.replace(counter_task(), score=Score("return", 0.0, 10.0))
    video = Recorder(TaskSet([task]), EvaluationConfig(episodes=1)).record(RANDOM, 0, 0, tmp_path / "f.mp4")
    assert video.success is None and video.episode_return == 10.0
    assert '"success": null' in video.path.with_suffix(".json").read_text()
    assert read_videos(tmp_path) == (video,)


def test_the_video_of_a_start_is_the_evaluated_episode(drawn: DrawnSuite, tmp_path: Path) -> None:
    """The same batch, row and random numbers: the observations' sum of actions would tell any difference."""
    tasks = TaskSet([counter_task("counter/long", horizon=5), counter_task("counter/short", horizon=3)])
    protocol = EvaluationConfig(episodes=5, copies=2, seed=7)
    totals: list[float] = []

    def remember(done: JobResult) -> None:
        if done.episodes is not None:
            # the last of six observations of each episode
            totals.extend(done.episodes.observations["state"][5::6, 2].tolist())

    result = evaluate(
        LocalRollouts(tasks, RuntimeConfig()),
        tasks,
        RANDOM.snapshot,
        protocol,
        RANDOM.reference,
        Provenance.collect("test"),
        record=(0,),
        on_result=remember,
    )
    drawn.built.clear()
    recorder = Recorder(tasks, protocol)
    for index in range(5):
        video = recorder.record(RANDOM, 0, index, tmp_path / "video.mp4")
        row = drawn.built[index % 2]
        assert row.total == pytest.approx(totals[index], abs=1e-6)
        (evaluated,) = [one for one in result.task_episodes("counter/long") if one.start == video.start]
        assert (video.episode_return, video.decisions) == (evaluated.episode_return, evaluated.length)


def test_a_video_may_be_cut_short_and_ends_on_the_last_image(drawn: DrawnSuite, tmp_path: Path) -> None:
    fast = dataclasses.replace(counter_task(horizon=10), simulator_rate_hz=120.0)  # 60 Hz, every second one
    recorder = Recorder(TaskSet([fast]), EvaluationConfig(episodes=1, copies=1))
    cut = recorder.record(RANDOM, 0, 0, tmp_path / "cut.mp4", frames=3)
    assert (cut.frames, cut.decisions, cut.whole) == (3, 4, False)
    odd = dataclasses.replace(fast, horizon_decisions=5)
    whole = Recorder(TaskSet([odd]), EvaluationConfig(episodes=1)).record(RANDOM, 0, 0, tmp_path / "odd.mp4")
    shown = [round(frame[20, 20].mean() / SHADE) for frame in images(tmp_path / "odd.mp4")]
    assert shown == [0, 2, 4, 5], "the true last image, though none was due"
    assert whole.whole
    with pytest.raises(OutOfRangeError, match="at least 2"):
        recorder.record(RANDOM, 0, 0, tmp_path / "none.mp4", frames=1)


def test_an_environment_with_a_clock_of_its_own_keeps_it(drawn: DrawnSuite, tmp_path: Path) -> None:
    drawn.kind = ClockedCounter
    recorder = Recorder(TaskSet([counter_task(horizon=5)]), EvaluationConfig(episodes=1))
    assert recorder.record(RANDOM, 0, 0, tmp_path / "clock.mp4").decisions == 2


def test_a_video_that_is_interrupted_leaves_the_older_one(drawn: DrawnSuite, tmp_path: Path) -> None:
    recorder = Recorder(TaskSet([counter_task(horizon=4)]), EvaluationConfig(episodes=2, copies=1))
    path = tmp_path / "video.mp4"
    video = recorder.record(RANDOM, 0, 0, path)
    before = path.read_bytes()

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recorder.record(RANDOM, 0, 1, path, on_decision=stop)
    assert path.read_bytes() == before
    assert read_videos(tmp_path) == (video,)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["video.jpg", "video.json", "video.mp4"]
    assert recorder.record(RANDOM, 0, 0, path) == video
    assert path.read_bytes() == before, "equal episodes give equal bytes"


def test_an_encoder_that_fails_hides_no_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def append_data(self, frame: Frame) -> None: ...

        def close(self) -> None:
            raise BrokenPipeError("the encoder is gone")

    monkeypatch.setattr(VideoFile, "_open", lambda self: Broken())
    image = np.zeros((32, 32, 3), dtype=np.uint8)

    def recorded(interrupted: bool) -> None:
        with VideoFile(tmp_path / "video.mp4", Fraction(30)) as file:
            file.write(image)
            if interrupted:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recorded(True)
    with pytest.raises(ResourceError, match=r"video\.mp4 could not be encoded \(the encoder is gone\)"):
        recorded(False)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_drawn_is_refused_before_anything_is_stepped(tmp_path: Path) -> None:
    with counter_suite() as suite:
        recorder = Recorder(TaskSet([counter_task()]), EvaluationConfig(episodes=1))
        with pytest.raises(UnsupportedError, match="a counter has no image"):
            recorder.require_images([0])
        (looked_at,) = suite.built
        assert looked_at.t == 0 and looked_at.closed
        suite.supports_starts = False
        with pytest.raises(UnsupportedError, match="cannot reset to a given start"):
            recorder.require_images([0])


def test_a_image_that_fails_names_task_and_decision(drawn: DrawnSuite, tmp_path: Path) -> None:
    recorder = Recorder(TaskSet([counter_task(blind_at=2)]), EvaluationConfig(episodes=1))
    with pytest.raises(EnvironmentFault, match=r"the image after decision 2(.|\n)*the lens broke"):
        recorder.record(RANDOM, 0, 0, tmp_path / "video.mp4")
    assert list(tmp_path.iterdir()) == []


def test_another_ending_than_mp4_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ending \.mp4, not 'video.gif'"):
        VideoFile(tmp_path / "video.gif", Fraction(30))


def test_names_of_videos_are_names_of_files() -> None:
    assert video_name("student", "metaworld/reach-v3", 5) == "student-metaworld-reach-v3-5.mp4"
    assert video_name("a b", "gym/pkg:Thing-v0", 2) == "a-b-gym-pkg-Thing-v0-2.mp4"


def test_records_without_video_are_left_out_and_damaged_ones_named(drawn: DrawnSuite, tmp_path: Path) -> None:
    recorder = Recorder(TaskSet([counter_task()]), EvaluationConfig(episodes=1))
    recorder.record(RANDOM, 0, 0, tmp_path / "gone.mp4")
    (tmp_path / "gone.mp4").unlink()
    assert read_videos(tmp_path) == ()
    recorder.record(RANDOM, 0, 0, tmp_path / "video.mp4")
    record = tmp_path / "video.json"
    record.write_text(record.read_text().replace('"decisions": 4', '"decisions": "4"'))
    with pytest.raises(IntegrityError, match=r"video\.json.*decisions"):
        read_videos(tmp_path)


def test_a_video_is_what_browsers_play(drawn: DrawnSuite, tmp_path: Path) -> None:
    """H.264 in 4:2:0, its index before its images."""
    Recorder(TaskSet([counter_task()]), EvaluationConfig(episodes=1)).record(RANDOM, 0, 0, tmp_path / "f.mp4")
    content = (tmp_path / "f.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    video = cv2.VideoCapture(str(tmp_path / "f.mp4"))
    assert int(video.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little") in (b"h264", b"avc1")
    assert video.get(cv2.CAP_PROP_FPS) == 20.0
    # profile_idc of the decoder's configuration (ISO/IEC 14496-15): 100 is High, which is 4:2:0
    assert content[content.index(b"avcC") + 5] == 100
