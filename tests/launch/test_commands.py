"""The command line: help, exit codes, and the whole way from demonstrations to a report, in small."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtrl import registry
from mtrl.data import DemonstrationConfig, read_dataset
from mtrl.integrity import verify_manifest
from mtrl.launch.main import COMMANDS, main
from mtrl.pipeline import Interrupted, collect_into, resume_command
from mtrl.rollout import LocalRollouts, RuntimeConfig
from mtrl.training import Interruptible, read_jsonl

Capture = pytest.CaptureFixture[str]

SMALL = [
    "tasks=point/obstacle",
    "agent.network.width=32",
    "agent.network.blocks=1",
    "agent.batch_size=32",
    "distillation.network.width=32",
    "distillation.network.blocks=1",
    "distillation.batch_size=32",
    "distillation.updates=30",
    "cloning.updates=30",
    "demonstrations.episodes=4",
    "demonstrations.job_episodes=2",
    "training.updates=60",
    "training.log_every=10",
    "training.checkpoint_every=20",
    "training.threads=1",
    "evaluation.episodes=4",
    "evaluation.copies=2",
]


def mtrl(*words: str) -> int:
    return main(list(words))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run with every stage but the robot."""
    place = tmp_path_factory.mktemp("place")
    with contextlib.chdir(place):
        # a relative output, as most people write it
        code = mtrl(
            "train",
            *SMALL,
            "output=runs",
            "name=small",
            "stages=[collect,train,clone,distill,evaluate,export,report]",
        )
    assert code == 0
    return place / "runs" / "small"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_three_examples(command: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stopped:
        mtrl(command, "--help")
    shown = capsys.readouterr().out
    assert stopped.value.code == 0
    assert shown.count(f"mtrl {command}") >= 4, "the usage line and three examples"


def test_an_unknown_command_is_answered(capsys: Capture) -> None:
    assert mtrl("trian") == 2
    assert "did you mean 'train'" in capsys.readouterr().err


def test_a_mistake_prints_one_line_and_no_traceback(capsys: Capture) -> None:
    assert mtrl("train", "sed=3") == 2
    assert capsys.readouterr().err.startswith("mtrl: unknown key 'sed'")


def test_tasks_lists_without_a_simulator() -> None:
    script = (
        "import sys; from mtrl.launch.main import main; code = main(['tasks', 'mt10', '--json'])\n"
        "assert not {'mujoco', 'metaworld', 'dm_control', 'ale_py', 'torch'} & set(sys.modules)\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    listed = json.loads(done.stdout)
    assert len(listed) == 10
    assert listed[0]["observation"] == "state 39" and listed[0]["action"] == "continuous 4"


def test_a_run_leaves_what_it_promises(finished: Path) -> None:
    for place in ("config.yaml", "metrics.jsonl", "timing.jsonl", "artefact/policy.onnx", "report.html"):
        assert (finished / place).exists(), place
    for label in ("teacher", "bc", "student"):
        assert list((finished / "evaluations").glob(f"{label}-*.json")), label
        assert verify_manifest(finished / "policies" / label)
    summary = json.loads((finished / "summary.json").read_text())
    assert {"point_teacher_success", "point_bc_success", "point_student_success", "point_modes_kept",
            "student_latency_us_p50", "student_latency_us_p99", "wall_seconds"} <= set(summary)  # fmt: skip
    assert [row["step"] for row in read_jsonl(finished / "metrics.jsonl")] == [10, 20, 30, 40, 50, 60]


def test_equal_seeds_give_equal_metrics_and_another_seed_does_not(finished: Path, tmp_path: Path) -> None:
    for name, seed in (("again", 1), ("other", 2)):
        assert (
            mtrl("train", *SMALL, f"output={tmp_path}", f"name={name}", f"seed={seed}", "stages=[train]") == 0
        )
    first = (finished / "metrics.jsonl").read_bytes()
    assert (tmp_path / "again" / "metrics.jsonl").read_bytes() == first
    assert (tmp_path / "other" / "metrics.jsonl").read_bytes() != first


def test_interrupted_and_resumed_equals_uninterrupted(finished: Path, tmp_path: Path) -> None:
    words = [
        sys.executable, "-m", "mtrl.launch.main", "train", *SMALL, f"output={tmp_path}", "name=small",
        "stages=[train]",
    ]  # fmt: skip
    # Slow enough to be caught in the middle, whatever the machine.
    slow = (
        "import sys, time, mtrl.agents.diffusion.agent as agent; update = agent.DiffusionAgent.update\n"
        "def slowly(self, reducer): time.sleep(0.05); return update(self, reducer)\n"
        "agent.DiffusionAgent.update = slowly\n"
        "from mtrl.launch.main import main; sys.argv = ['mtrl', *sys.argv[1:]]; sys.exit(main())"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    child = subprocess.Popen(
        [sys.executable, "-c", slow, *words[3:]], stdout=subprocess.PIPE, text=True, env=environment
    )
    metrics = tmp_path / "small" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    printed, _ = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "--resume auto" in printed
    assert not (tmp_path / "small" / "policies" / "teacher").exists(), "it stopped before the end"
    assert (
        mtrl("train", *SMALL, f"output={tmp_path}", "name=small", "stages=[train]", "--resume", "auto") == 0
    )
    assert metrics.read_bytes() == (finished / "metrics.jsonl").read_bytes()


def test_an_existing_run_is_never_overwritten_unasked(finished: Path, capsys: Capture) -> None:
    before = (finished / "config.yaml").read_bytes()
    assert mtrl("train", *SMALL, f"output={finished.parent}", "name=small") == 2
    assert "--resume auto" in capsys.readouterr().err
    assert (finished / "config.yaml").read_bytes() == before


def test_resuming_with_other_settings_names_the_difference(finished: Path, capsys: Capture) -> None:
    words = [word for word in SMALL if not word.startswith("agent.batch_size")]
    code = mtrl(
        "train", *words, "agent.batch_size=33", f"output={finished.parent}", "name=small", "--resume", "auto",
        "stages=[collect,train,clone,distill,evaluate,export,report]",
    )  # fmt: skip
    assert code == 2
    assert "agent.batch_size=32, now it is 33" in capsys.readouterr().err


def test_a_finished_run_does_nothing_twice(finished: Path) -> None:
    stamp = (finished / "policies" / "teacher" / "manifest.sha256").stat().st_mtime_ns
    code = mtrl(
        "train", *SMALL, f"output={finished.parent}", "name=small", "--resume", "auto",
        "stages=[collect,train,clone,distill,evaluate,export,report]",
    )  # fmt: skip
    assert code == 0
    assert (finished / "policies" / "teacher" / "manifest.sha256").stat().st_mtime_ns == stamp


def test_a_run_and_an_artefact_can_be_evaluated_again(
    finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ["episodes=3", "--out", str(tmp_path)]
    assert mtrl("evaluate", str(finished), "--policy", "student", *words) == 0
    assert mtrl("evaluate", str(finished / "artefact"), *words, "evaluation.copies=2") == 0
    found = {path.name.split("-")[0]: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert set(found) == {"student", "artefact"}
    student, artefact = (
        [episode["start"] for episode in found[label]["episodes"]] for label in ("student", "artefact")
    )
    assert student == artefact
    assert mtrl("evaluate", str(finished), "--policy", "studnet", *words) == 2
    assert "did you mean 'student'" in capsys.readouterr().err


def test_chunks_are_carried_out_as_an_evaluation_says(
    finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    late = ("execution.delay=4", "execution.blend=none")
    words = ("evaluate", str(finished), "--policy", "teacher", "--out", str(tmp_path))
    assert mtrl(*words) == mtrl(*words, *late) == mtrl(*words, "execution.adaptive=0.97") == 0
    files = sorted(tmp_path.glob("*.json"))
    assert [file.name.split("-60-")[0] for file in files] == [
        "teacher",
        "teacher-adaptive0.97",
        "teacher-delay4-blendnone",
    ]
    played = [json.loads(file.read_text()) for file in files]
    assert len({json.dumps(one["episodes"]) for one in played}) == 3, "each acts otherwise"
    assert len({one["policy"]["identity"] for one in played}) == 1, "all are one policy"
    capsys.readouterr()
    assert mtrl(*words, "execution.delay=5") == 2
    assert "evaluation.execution.delay=5 is out of range" in capsys.readouterr().err
    assert mtrl("evaluate", "random", "tasks=point/obstacle", "execution.delay=1") == 2
    assert "random plans no chunks of actions" in capsys.readouterr().err
    assert len(list(tmp_path.glob("*.json"))) == 3


def test_collect_keeps_what_is_there(tmp_path: Path, capsys: Capture) -> None:
    words = ["collect", "tasks=point/obstacle", "episodes=2", "--out", str(tmp_path / "data")]
    assert mtrl(*words) == 0
    assert mtrl(*words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert mtrl(*words, "--resume", "auto") == 0
    train = ["train", *SMALL, f"data={tmp_path / 'data'}", f"output={tmp_path}", "stages=[train]"]
    assert mtrl(*train) == 0
    (tmp_path / "data/point/obstacle-v0/data/main_data.hdf5").write_bytes(b"cut")
    assert mtrl(*train, "name=later") == 2, "refused before there is a run"
    assert "main_data.hdf5" in capsys.readouterr().err and not (tmp_path / "later").exists()


def test_a_collection_is_resumed_with_its_own_settings_only(tmp_path: Path, capsys: Capture) -> None:
    place = ["collect", "tasks=point/obstacle", "--out", str(tmp_path)]
    assert mtrl(*place, "episodes=2") == 0
    for words, named in ((["episodes=3"], "settings"), (["episodes=2", "seed=9"], "seed")):
        assert mtrl(*place, *words, "--resume", "auto") == 2
        assert f"collected with {named}" in capsys.readouterr().err
    assert mtrl(*place, "episodes=3", "--overwrite") == 0
    assert mtrl(*place, "episodes=3", "--resume", "auto") == 0
    assert mtrl(*place, "--resume", "auto", "--overwrite") == 2


def test_a_stopped_collection_keeps_finished_tasks_and_goes_on(tmp_path: Path) -> None:
    tasks, config = (
        registry.task_set(["point/obstacle", "metaworld/reach-v3"]),
        DemonstrationConfig(episodes=1, job_episodes=1),
    )
    rollouts = LocalRollouts(tasks, RuntimeConfig())
    with contextlib.closing(rollouts):
        for place in ("stopped", "whole"):
            asked = iter([False, True, True, True]) if place == "stopped" else itertools.repeat(False)
            with pytest.raises(Interrupted) if place == "stopped" else contextlib.nullcontext():
                # Asked after the one job of the first task, then between the two tasks.
                collect_into(tmp_path / place, tasks, rollouts, config, 1, stop=lambda a=asked: next(a))
        assert [path.name for path in (tmp_path / "stopped").iterdir()] == ["point"]
        collect_into(tmp_path / "stopped", tasks, rollouts, config, 1, stop=lambda: False)
    for task, name in zip(tasks, ("point/obstacle-v0", "metaworld/reach-v3-v0"), strict=True):
        resumed, whole = (read_dataset(tmp_path / place, name, task) for place in ("stopped", "whole"))
        assert (resumed.actions == whole.actions).all()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("agent.network.width=0", "width=0 is out of range"),
        ("agent.network.width=many", "agent.network.width='many' has the wrong type"),
        ("sampling=worst_task", "set them singly, as in sampling.kind=VALUE"),
        ("agent.batch_size=0", "agent.batch_size=0 is out of range"),
        ("distillation.network.chunk=4", "distillation.network.chunk=4, the teacher's is 8"),
        ("distillation.execution.steps=9", "distillation.execution.steps=9 is out of range"),
        ("tasks=atari/Boxing", "atari/Boxing is discrete"),
        ("robot.name=sin", "did you mean 'sim'"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_written(
    word: str, message: str, tmp_path: Path, capsys: Capture
) -> None:
    stages = "stages=[collect,train,distill,deploy]"
    assert mtrl("train", *SMALL, word, f"output={tmp_path}", "name=never", stages) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "RUN", "agent.network.width=16"],
        ["distill", "RUN", "agent.network.width=16", "--overwrite"],
        ["export", "RUN", "distillation.updates=3", "--overwrite"],
    ],
)
def test_what_a_run_was_made_of_cannot_be_changed_afterwards(
    finished: Path, words: list[str], capsys: Capture
) -> None:
    assert mtrl(*[word.replace("RUN", str(finished)) for word in words]) == 2
    assert "was settled when the run was made" in capsys.readouterr().err
    assert (finished / "artefact").exists()


def test_an_evaluation_that_is_there_is_said_before_it_is_repeated(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    words = ["evaluate", str(finished), "--policy", "bc", "episodes=1", "--out", str(tmp_path)]
    assert mtrl(*words) == 0
    monkeypatch.setattr("mtrl.pipeline.session.evaluate", lambda *_, **__: pytest.fail("work was begun"))
    assert mtrl(*words) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_ctrl_c_stops_an_evaluation(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(Interruptible, "__enter__", lambda self: setattr(self, "requested", True) or self)
    assert mtrl("evaluate", str(finished), "episodes=1", "--out", str(tmp_path)) == 130
    printed = capsys.readouterr().out
    assert "stopped while evaluating diffusion; no result was finished" in printed
    assert not list(tmp_path.iterdir())


def test_a_new_student_takes_no_figure_of_the_old_one(
    finished: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    words = ["distill", str(run), "seed=5", "distillation.updates=3"]
    assert mtrl(*words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert mtrl(*words, "--overwrite", "--resume", "auto") == 2
    assert mtrl(*words, "--overwrite") == 0
    left = {path.relative_to(run).as_posix() for path in run.glob("*/*.json")}
    assert left >= {"evaluations/teacher-60.json", "modes/teacher.json"}
    # the new student's own: its folder began anew
    assert [name for name in left if "student" in name] == ["student/training_time.json"]
    assert not (run / "artefact").exists() and not (run / "summary.json").exists()
    assert mtrl("export", str(run)) == 0
    assert json.loads((run / "artefact" / "manifest.json").read_text())["provenance"]["success"] is None


def test_a_place_that_is_a_file_is_named(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").write_text("mine")
    for words in (["collect", "episodes=1"], ["evaluate", "expert", "episodes=1"]):
        assert mtrl(*words, "tasks=point/obstacle", "--out", str(tmp_path / "file")) == 2
        assert str(tmp_path / "file") in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["train", "seed=2", "--overwrite"], "mtrl train seed=2 --resume auto"),
        (["train", "--resume", "never", "seed=2"], "mtrl train seed=2 --resume auto"),
        (["train", "--resume=auto", "name=a b"], "mtrl train 'name=a b' --resume auto"),
    ],
)
def test_the_command_that_resumes(words: list[str], printed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/some/where/mtrl", *words])
    assert resume_command() == printed


@pytest.mark.parametrize(
    ("victim", "words"),
    [
        ("policies/student/state.safetensors", ["evaluate", "RUN", "--policy", "student"]),
        ("artefact/manifest.json", ["evaluate", "RUN/artefact"]),
        ("artefact/policy.onnx", ["deploy", "RUN/artefact"]),
        ("demonstrations/point/obstacle-v0/data/main_data.hdf5", ["distill", "RUN", "--overwrite"]),
    ],
)
def test_damage_is_refused_by_name(
    finished: Path, tmp_path: Path, victim: str, words: list[str], capsys: Capture
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    damaged = run / victim
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(bytes(content))
    assert mtrl(*[word.replace("RUN", str(run)) for word in words]) == 2
    assert damaged.name in capsys.readouterr().err


def test_a_full_disk_is_said_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    assert mtrl("train", *SMALL, f"output={tmp_path}", "name=small") == 2
    assert "free" in capsys.readouterr().err
    assert not (tmp_path / "small").exists()
