"""W&B: what is recorded can be read back, a resumed run is the same run, and no network stops training."""

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtrl.errors import ConfigError, IntegrityError
from mtrl.training import Trackers
from mtrl.training.weights_and_biases import WandbConfig, WandbTracker

BLOCK, HEADER = 32_768, 7
UNREACHABLE = "http://127.0.0.1:9"
KEY = "0123456789" * 4


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No network, no credentials of the machine's, and no process of W&B's left behind."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    yield
    import wandb

    wandb.teardown()


def records(file: Path) -> Iterator[Any]:
    """The records of a .wandb file: 7 bytes of header, then LevelDB's log format over protobuf messages."""
    from wandb.proto import wandb_internal_pb2

    content = file.read_bytes()
    assert content[:4] == b":W&B"
    place, parts = HEADER, b""
    while place < len(content):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        size = int.from_bytes(content[place + 4 : place + 6], "little")
        kind = content[place + 6]
        parts += content[place + HEADER : place + HEADER + size]
        place += HEADER + size
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def runs(place: Path) -> list[Path]:
    """The record of every session; the service writes the last of it when it ends."""
    import wandb

    wandb.teardown()
    return sorted((place / "wandb").glob("offline-run-*/run-*.wandb"))


def rows(file: Path) -> list[dict[str, float]]:
    """The logged rows without W&B's own columns."""
    found = []
    for record in records(file):
        if record.WhichOneof("record_type") == "history":
            row = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            found.append({key: value for key, value in row.items() if not key.startswith("_")})
    return found


def tracker_at(place: Path, **settings: Any) -> WandbTracker:
    return WandbTracker(place, WandbConfig(mode="offline", **settings), run_name="small")


def test_what_is_logged_can_be_read_back(tmp_path: Path) -> None:
    tracker = WandbTracker(
        tmp_path,
        WandbConfig(mode="offline", project="house", entity="us", group="pairs", tags=("a", "b")),
        run_name="small",
        settings={"seed": 3},
    )
    tracker.log(10, {"loss": 0.25, "success/reach": 1})
    tracker.timing(10, {"updates_per_second": 7.5})
    tracker.log(20, {"loss": 0.125})
    tracker.close()
    (file,) = runs(tmp_path)
    assert rows(file) == [
        {"loss": 0.25, "success/reach": 1.0, "step": 10},
        {"timing/updates_per_second": 7.5, "step": 10},
        {"loss": 0.125, "step": 20},
    ]
    (run,) = [record.run for record in records(file) if record.WhichOneof("record_type") == "run"][:1]
    assert (run.run_id, run.project, run.entity) == (tracker.run_id, "house", "us")
    assert (run.display_name, run.run_group, list(run.tags)) == ("small", "pairs", ["a", "b"])
    settings = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert settings["seed"] == 3
    axes = [record.metric for record in records(file) if record.WhichOneof("record_type") == "metric"]
    assert [axis.step_metric for axis in axes if axis.glob_name == "*"] == ["step"]


def test_no_code_git_state_or_console_is_kept(tmp_path: Path) -> None:
    tracker = tracker_at(tmp_path)
    tracker.log(1, {"loss": 1.0})
    print("a secret on the console")
    tracker.close()
    kept = {path.name for path in (tmp_path / "wandb").rglob("*") if path.is_file()}
    assert not kept & {"output.log", "diff.patch"}
    assert not [name for name in kept if name.endswith(".py")]
    (file,) = runs(tmp_path)
    assert b"a secret on the console" not in file.read_bytes()


def test_a_resumed_run_has_the_same_id_and_no_step_twice(tmp_path: Path) -> None:
    first = tracker_at(tmp_path)
    for step in (10, 20, 30):
        first.log(step, {"loss": 1 / step})
        first.timing(step, {"rate": 5.0})
        if step == 10:
            saved = first.state_dict()
    first.close()
    second = tracker_at(tmp_path)
    assert second.run_id == first.run_id
    second.load_state_dict(json.loads(json.dumps(saved)))
    for step in (20, 30, 40):
        second.log(step, {"loss": 1 / step})
        second.timing(step, {"rate": 5.0})
    second.close()
    sent = [row for file in runs(tmp_path) for row in rows(file)]
    assert [row["step"] for row in sent if "loss" in row] == [10, 20, 30, 40]
    assert [row["step"] for row in sent if "timing/rate" in row] == [10, 20, 30, 40]
    for file in runs(tmp_path):
        assert file.name == f"run-{first.run_id}.wandb"


def test_a_tracker_that_logs_nothing_writes_nothing(tmp_path: Path) -> None:
    tracker = tracker_at(tmp_path)
    tracker.load_state_dict({})
    tracker.close()
    assert not list(tmp_path.iterdir())


def test_two_runs_have_two_ids(tmp_path: Path) -> None:
    assert tracker_at(tmp_path / "a").run_id != tracker_at(tmp_path / "b").run_id


def test_a_memory_that_was_damaged_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "mtrl.json").write_text('{"id": "abc"}')
    with pytest.raises(IntegrityError, match=r"mtrl\.json is not the memory of a W&B run"):
        tracker_at(tmp_path)


@pytest.mark.parametrize(
    ("configured", "environment", "expected"),
    [
        ("online", "", "online"),
        ("online", "offline", "offline"),
        ("online", "dryrun", "offline"),
        ("online", "disabled", "disabled"),
        ("offline", "online", "offline"),
        ("disabled", "online", "disabled"),
    ],
)
def test_the_environment_may_only_take_back(
    configured: str, environment: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", environment)
    assert WandbConfig(mode=configured).effective_mode == expected


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="online, offline, disabled; got 'of'"):
        WandbConfig(mode="of")
    with pytest.raises(ConfigError, match="project is empty"):
        WandbConfig(project="")
    with pytest.raises(ConfigError, match="leave it out"):
        WandbTracker(tmp_path, WandbConfig())


def run_alone(place: Path, code: str, **environment: str) -> str:
    """What a process says that logs in the mode online, as a training run does."""
    script = f"""
        import sys, time, warnings
        from pathlib import Path
        import mtrl.training.weights_and_biases as module
        from mtrl.training import Trackers
        module.INIT_SECONDS, module.FINISH_SECONDS = 2.0, 2.0
        place = Path(sys.argv[1])
        trackers = Trackers([module.WandbTracker(place, module.WandbConfig(mode="online"))])
        {code}
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(place)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path.cwd(),
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(place),
            "NETRC": str(place / "netrc"),
            "WANDB_BASE_URL": UNREACHABLE,
            **environment,
        },
    )
    return done.stderr


LOG_THREE = "[trackers.log(step, {'loss': 1.0 / step}) for step in (1, 2, 3)]; trackers.close()"


@pytest.mark.parametrize(
    ("environment", "said"),
    [({}, "W&B is not logged in"), ({"WANDB_API_KEY": KEY}, "W&B cannot be reached")],
)
def test_without_key_or_network_the_run_is_recorded_offline_and_said_so_once(
    environment: dict[str, str], said: str, tmp_path: Path
) -> None:
    printed = run_alone(tmp_path, LOG_THREE, **environment)
    assert printed.count("MtrlWarning") == 1
    assert said in printed and "wandb sync" in printed
    (file,) = runs(tmp_path)
    assert [row["step"] for row in rows(file)] == [1, 2, 3]


def test_an_error_under_way_marks_the_run_as_failed(tmp_path: Path) -> None:
    tracker = tracker_at(tmp_path)
    try:
        tracker.log(1, {"loss": 1.0})
        raise ValueError("a mistake in training")
    except ValueError:
        tracker.close()
    (file,) = runs(tmp_path)
    (exit_record,) = [record.exit for record in records(file) if record.WhichOneof("record_type") == "exit"]
    assert exit_record.exit_code == 1


def test_a_failing_wandb_is_said_once_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def fail(**_: object) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(wandb, "init", fail)
    trackers = Trackers([tracker_at(tmp_path)])

    def work() -> None:
        for step in range(100):
            trackers.log(step, {"loss": 1.0})
        trackers.close()

    with pytest.warns(RuntimeWarning) as caught:
        work()
    assert len(caught) == 1
    assert "RuntimeError: out of order" in str(caught[0].message)


def test_a_command_records_every_learner_in_one_group(tmp_path: Path) -> None:
    from mtrl.launch.main import main

    words = ["experiment=debug", "tracking=wandb", "tracking.tensorboard=false", "tasks=point/obstacle",
             "training.updates=20", "training.log_every=10", "distillation.updates=10",
             "stages=[collect,train,distill]", f"output={tmp_path}", "name=small"]  # fmt: skip
    assert main(["train", *words]) == 0
    found = {}
    for place in (tmp_path / "small", tmp_path / "small" / "student"):
        (file,) = runs(place)
        run = next(record.run for record in records(file) if record.WhichOneof("record_type") == "run")
        assert run.run_group == "small"
        found[run.display_name] = [row["step"] for row in rows(file) if "loss" in row]
    assert found == {"small/teacher": [10, 20], "small/student": [10]}
    written = [json.loads(line) for line in (tmp_path / "small" / "metrics.jsonl").read_text().splitlines()]
    assert [row for row in rows(runs(tmp_path / "small")[0]) if "loss" in row] == written
