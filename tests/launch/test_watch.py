"""`mtrl watch` and `mtrl evaluate --video`: films of what was judged, refused in time where nothing draws."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mtrl import registry
from mtrl.evaluation import read_result
from mtrl.launch.main import main
from mtrl.pipeline import choose_renderer
from mtrl.videos.video_record import read_videos
from mtrl.videos.window import Window, open_window

from ..synthetic import counter_suite

Capture = pytest.CaptureFixture[str]

TRAIN = [
    "tasks=point/obstacle",
    "agent.network.width=16",
    "agent.network.blocks=1",
    "agent.batch_size=16",
    "distillation.network.width=16",
    "distillation.network.blocks=1",
    "distillation.batch_size=16",
    "distillation.updates=4",
    "demonstrations.episodes=2",
    "demonstrations.job_episodes=2",
    "training.updates=4",
    "training.threads=1",
    "evaluation.episodes=3",
    "evaluation.copies=2",
    "stages=[collect,train,distill,report]",
]


def mtrl(*words: str) -> int:
    return main(list(words))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("watch")
    assert mtrl("train", *TRAIN, f"output={place}", "name=small") == 0
    return place / "small"


def test_a_run_with_a_report_has_films_of_the_drawn_task(trained: Path) -> None:
    made = {video.policy.label: video for video in read_videos(trained / "videos")}
    assert set(made) == {"teacher", "student"}
    assert all(video.start == 2 and video.task == "point/obstacle" for video in made.values())
    assert (trained / "report.html").read_text().count("<video ") == 2


def test_watching_a_run_shows_its_last_policy_on_the_asked_starts(trained: Path, tmp_path: Path) -> None:
    assert mtrl("watch", str(trained), "start=3", "episodes=2", "--out", str(tmp_path)) == 0
    assert [(v.policy.label, v.start) for v in read_videos(tmp_path)] == [("student", 11), ("student", 14)]
    assert mtrl("watch", str(trained), "--policy", "teacher", "--out", str(tmp_path / "one.mp4")) == 0
    assert (tmp_path / "one.mp4").is_file()


def test_mistakes_are_answered(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    there = tmp_path / "there.mp4"
    there.write_bytes(b"mine")
    cases = {
        ("watch", str(trained), "--policy", "techer"): "did you mean 'teacher'",
        ("watch", str(trained), "task=point/obstacles"): "did you mean 'point/obstacle'",
        ("watch", str(trained), "start=-1"): "start is a whole number of at least 0; got '-1'",
        ("watch", str(trained), "episodes=0"): "episodes is a whole number of at least 1",
        ("watch", str(trained), "seed=4"): "seed was settled when the run was made",
        ("watch", str(trained), "--frames", "1"): "frames=1 is out of range",
        ("watch", str(trained), "episodes=2", "--out", str(tmp_path / "x.mp4")): "give --out a folder",
        ("watch", str(trained), "--out", str(there)): "already there; pass --overwrite",
        ("watch", "expert"): "name one, such as task=",
        ("watch", str(tmp_path)): "is not a run of mtrl",
        ("watch", "random", "tasks=[point/obstacle,metaworld/reach-v3]"): "there are 2 tasks; name one",
        (
            "watch",
            "random",
            "task=mixed",
        ): "mixed is a set of tasks, and a video shows one; choose task=NAME among",
        ("watch", "expert", "task=atari/Boxing"): "no scripted expert for atari/Boxing",
    }
    for words, answer in cases.items():
        assert mtrl(*words) == 2, words
        assert answer in " ".join(capsys.readouterr().err.split()), words
    assert there.read_bytes() == b"mine"


def test_evaluating_with_films_shows_what_was_judged(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["--video=2", "--out", str(tmp_path), "--policy", "teacher", "--policy", "student"]
    assert mtrl("evaluate", str(trained), *words) == 0
    assert "another episode" not in capsys.readouterr().out
    videos = [v for v in read_videos(trained / "videos") if v.start in (2, 5)]
    assert [(v.policy.label, v.start) for v in videos] == [
        ("student", 2), ("student", 5), ("teacher", 2), ("teacher", 5),
    ]  # fmt: skip
    results = [read_result(file) for file in tmp_path.glob("*.json")]
    judged = {(result.policy, one.start): one for result in results for one in result.episodes}
    for video in videos:
        one = judged[video.policy, video.start]
        assert (video.episode_return, video.decisions) == (one.episode_return, one.length)


def test_watching_leaves_the_films_of_an_evaluation(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    before = {path.name: path.read_bytes() for path in (run / "videos").iterdir()}
    for _ in range(2):
        # twice: films that were only watched give way
        assert mtrl("watch", str(run), "--frames", "3") == 0
    assert {path.name: path.read_bytes() for path in (run / "videos").iterdir()} == before
    (film,) = read_videos(run / "watched")
    assert not film.whole
    assert f"{film.path}: start 2, test start 0: " in capsys.readouterr().out
    claim = tmp_path / ".run.owner" / "1" / "token"
    claim.parent.mkdir(parents=True)
    claim.touch()
    for out in (run / "videos", run / "one.mp4"):
        assert mtrl("watch", str(run), "--frames", "3", "--out", str(out)) == 2
        assert f"{run} is in use by another process" in capsys.readouterr().err
    assert mtrl("watch", str(run), "--frames", "3", "--out", str(run / "watched"), "--overwrite") == 0
    shutil.rmtree(claim.parents[1])
    capsys.readouterr()
    assert mtrl("watch", str(run), "--out", str(run / "videos")) == 2
    assert "student-point-obstacle-2.mp4 is already there; pass --overwrite" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (run / "videos").iterdir()} == before
    assert mtrl("watch", str(run), "--frames", "3", "--out", str(run / "videos"), "--overwrite") == 0


def test_what_was_judged_already_is_only_filmed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    words = ["evaluate", str(trained), "--policy", "student", "--out", str(tmp_path)]
    assert mtrl(*words) == 0
    (file,) = tmp_path.glob("*.json")
    before = file.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr("mtrl.pipeline.session.evaluate", lambda *_, **__: pytest.fail("evaluated again"))
        assert mtrl(*words, "--video=2") == 0
        assert "student is not evaluated again" in capsys.readouterr().out
        assert file.read_bytes() == before
        # another policy's result under the name is no reason to film
        file.write_text(before.decode().replace(read_result(file).policy.identity, "f00d" * 16))
        assert mtrl(*words, "--video=2") == 2
    assert "already there" in capsys.readouterr().err


def test_a_film_without_a_success_rule_tells_its_score(tmp_path: Path, capsys: Capture) -> None:
    words = ["task=gym/CartPole-v1", "--out", str(tmp_path)]
    assert mtrl("watch", "random", *words) == 0
    (film,) = read_videos(tmp_path)
    printed = capsys.readouterr().out.replace(str(tmp_path), "")
    assert film.success is None
    assert "success" not in printed
    score = registry.task("gym/CartPole-v1").score.normalise(film.episode_return, success=False)
    assert f"score {100 * score:.1f}%, return {film.episode_return:.2f}" in printed
    assert mtrl("watch", "random", *words, "--frames", "2", "--overwrite") == 0
    assert "score" not in capsys.readouterr().out, "a part of a return has none"


def test_a_count_that_is_none_is_explained(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        mtrl("evaluate", "--video", "expert", "tasks=point/obstacle")
    assert "put a lone --video last" in capsys.readouterr().err


def test_films_are_refused_before_anything_is_evaluated(tmp_path: Path, capsys: Capture) -> None:
    with counter_suite() as suite:
        code = mtrl("evaluate", "random", "tasks=counter/short", "--video", "--out", str(tmp_path / "new"))
        assert code == 2
        assert all(environment.t == 0 for environment in suite.built)
    said = capsys.readouterr().err
    assert "a counter has no image. Leave out --video, or these tasks: counter/short" in said
    assert not (tmp_path / "new").exists()


def test_without_opengl_a_sentence_comes_before_the_policy_is_loaded(tmp_path: Path) -> None:
    """A policy that does not exist is not even looked for; nothing is written."""
    script = (
        "import ctypes.util; ctypes.util.find_library = lambda name: None\n"
        "import mtrl.launch.watch as watch\n"
        "def loaded(*_): raise AssertionError('a policy was loaded')\n"
        "watch.Subject = watch.PolicySnapshot = loaded\n"
        "from mtrl.launch.main import main; import sys\n"
        "sys.exit(main(['watch', 'expert', 'task=metaworld/reach-v3', f'output={sys.argv[1]}/runs']))"
    )
    environment = {name: text for name, text in os.environ.items() if name not in ("MUJOCO_GL", "DISPLAY")}
    environment |= {"PYTHONPATH": str(Path.cwd())}
    environment.pop("PYOPENGL_PLATFORM", None)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "needs off-screen OpenGL" in done.stderr
    assert "apt-get install libosmesa6" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_osmesa_is_chosen_only_where_nothing_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MUJOCO_GL", "DISPLAY", "PYOPENGL_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "mujoco", raising=False)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    choose_renderer()
    assert "MUJOCO_GL" not in os.environ
    monkeypatch.setattr("ctypes.util.find_library", lambda name: f"lib{name}.so.8")
    monkeypatch.setenv("DISPLAY", ":0")
    choose_renderer()
    assert "MUJOCO_GL" not in os.environ
    monkeypatch.delenv("DISPLAY")
    # setenv and delenv, so that the fixture takes back what is chosen
    monkeypatch.setenv("PYOPENGL_PLATFORM", "")
    monkeypatch.setenv("MUJOCO_GL", "egl")
    choose_renderer()
    assert os.environ["MUJOCO_GL"] == "egl"
    monkeypatch.setenv("MUJOCO_GL", "")
    choose_renderer()
    assert os.environ["MUJOCO_GL"] == "osmesa"


def test_sdl_plays_to_nobody_where_there_is_no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    drivers = ("SDL_AUDIODRIVER", "SDL_VIDEODRIVER")
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    for name in drivers:
        # set first, so that the fixture takes back what is chosen
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("DISPLAY", ":0")
    choose_renderer()
    assert not {*drivers} & {*os.environ}
    monkeypatch.delenv("DISPLAY")
    choose_renderer()
    assert [os.environ[name] for name in drivers] == ["dummy", "dummy"]
    monkeypatch.setenv("SDL_AUDIODRIVER", "alsa")
    choose_renderer()
    assert os.environ["SDL_AUDIODRIVER"] == "alsa"


def test_without_a_display_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    assert open_window(Console()) is None
    assert "there is no window here (no display); the video is written all the same" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_window_that_was_closed_shows_nothing_more() -> None:
    """No display runs the tests, so a stand-in takes the place of tkinter's root window."""
    tkinter = pytest.importorskip("tkinter")

    class Root:
        def __init__(self) -> None:
            self.updates = 0

        def update(self) -> None:
            self.updates += 1

        def destroy(self) -> None:
            raise AssertionError("it is gone already")

    def picture(**given: object) -> None:
        assert given["data"] == b"P6 2 1 255 \x00\x01\x02\x03\x04\x05"
        raise tkinter.TclError("application has been destroyed")

    root = Root()
    window = Window(root, picture)
    frame = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    window.show(frame, 1, 30.0)
    window.show(frame, 1, 30.0)
    window.close()
    assert root.updates == 0
