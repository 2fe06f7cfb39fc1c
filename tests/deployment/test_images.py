"""Policies that see images and choose: from torch to an artefact, from there to a robot in real time."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from mtrl.agents.grpo.config import PolicyConfig
from mtrl.agents.grpo.networks import StepBatch, TaskActor
from mtrl.data import Bucket
from mtrl.deployment import (
    Manifest,
    RobotConfig,
    TaskEntry,
    artefact_policy,
    artefact_snapshot,
    compatible_task,
    deploy,
    latency_apart,
    open_artefact,
    read_flight,
    replay,
    verify,
    write_artefact,
)
from mtrl.deployment.artefact.export import controller_cases, controller_graph
from mtrl.errors import ConfigError, GuardError, IntegrityError, SpaceError
from mtrl.nn import PixelEncoderConfig, TaskController, TorsoConfig
from mtrl.rollout import Acting, EpisodeJob, LocalRollouts, RuntimeConfig
from mtrl.spaces import ActionSpec, Layout, ObservationSpec
from mtrl.tasks import Split, Task, TaskSet, start_id

from .bench_suite import IMAGE, SUITE, BenchSuite

MIXED = Layout(
    observations=(
        ObservationSpec(state=3),
        ObservationSpec(state=5),
        ObservationSpec(pixels=(2, 36, 36)),
        ObservationSpec(state=2, pixels=(2, 36, 36)),
    ),
    actions=(
        ActionSpec(continuous=2),
        ActionSpec(discrete=3),
        ActionSpec(discrete=4),
        ActionSpec(continuous=3),
    ),
)


def graph() -> bytes:
    """Looks at one pixel: 0, 100 or 200 are the choices 0, 1 and 2."""
    value = helper.make_tensor_value_info
    constants = {
        "place": np.array([[0, 0, 0]]),
        "levels": np.array([0, 100, 200], dtype=np.float32),
        "shape": np.array([-1, 1, 3]),
        "flat": np.array([-1, 1]),
        "zero": np.array([0]),
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["numbers", "whole"], ["rows"]),
        helper.make_node("Gather", ["rows", "zero"], ["pixel"], axis=1),
        helper.make_node("Equal", ["pixel", "levels"], ["same"]),
        helper.make_node("Cast", ["same"], ["scores"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["scores", "shape"], ["chunk"]),
    ]
    constants["whole"] = np.array([-1, int(np.prod(IMAGE))])
    del constants["place"], constants["flat"]
    made = helper.make_graph(
        nodes,
        "looks",
        [value("pixels", TensorProto.UINT8, ["N", *IMAGE]), value("task", TensorProto.INT64, ["N"])],
        [value("chunk", TensorProto.FLOAT, ["N", 1, 3])],
        [numpy_helper.from_array(constant, name) for name, constant in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def exported(directory: Path) -> Path:
    """An artefact of that graph for the bench's task with images."""
    draws = np.random.default_rng(0)
    wanted = draws.integers(0, 3, 64)
    pixels = draws.integers(0, 256, (64, *IMAGE), dtype=np.uint8)
    pixels[:, 0, 0, 0] = 100 * wanted
    manifest = Manifest(
        tasks=(TaskEntry.of(SUITE.task("bench/image"), 0),),
        state_size=0,
        action_size=3,
        choices=3,
        pixels=IMAGE,
    )
    chunk = np.eye(3, dtype=np.float32)[wanted][:, None]
    golden = {"pixels": pixels, "task": np.zeros(64, dtype=np.int64), "chunk": chunk}
    write_artefact(directory, graph(), manifest, golden)
    return directory


def test_a_policy_chooses_by_what_it_sees_in_real_time(bench: BenchSuite, tmp_path: Path) -> None:
    """Twelve right choices in a row, each by the image of its own tick: by chance one flight in 500,000."""
    artefact = exported(tmp_path / "artefact")
    patient = dict.fromkeys(("stale_limit_ms", "inference_deadline_ms", "command_timeout_ms"), 1000.0)
    config = RobotConfig(fifo=False, proposal_periods=50, settle_decisions=2, hold_last=(), **patient)  # type: ignore[arg-type]
    (episode,) = deploy(artefact, config, ["bench/image"], [3], 0, tmp_path).episodes
    assert episode.success
    assert (episode.final_state, episode.held_ticks) == ("RUN", 0)
    flight = read_flight(Path(episode.log))
    assert flight.observation.shape[1] == 0, "images are not logged"
    assert set(flight.command.ravel()) == {0.0, 1.0, 2.0}
    assert replay(flight)[0].tobytes() == flight.command.tobytes()


def test_an_artefact_of_images_is_verified_and_measured(bench: BenchSuite, tmp_path: Path) -> None:
    artefact = exported(tmp_path / "artefact")
    assert verify(artefact).golden_error == 0.0
    assert latency_apart(artefact, 50, 1)["samples"] == 50
    contents = open_artefact(artefact)
    with pytest.raises(ConfigError, match=r"sees images \(2, 5, 3\); the tasks show \(2, 5, 4\)"):
        artefact_policy(artefact_snapshot(contents), TaskSet([shown_as((2, 5, 4))]))
    other = dataclasses.replace(contents.manifest, pixels=(2, 5, 4))
    with pytest.raises(GuardError, match=r"images \(2, 5, 4\) of bench/image"):
        compatible_task(other, "bench/image")
    for change in ({"pixels": ()}, {"pixels": (5, 3)}, {"pixels": (1, 9000, 9000)}, {"history": 2}):
        with pytest.raises(SpaceError, match="image"):
            dataclasses.replace(contents.manifest, **change)


def shown_as(shape: tuple[int, int, int]) -> Task:
    return dataclasses.replace(SUITE.task("bench/image"), observation=ObservationSpec(pixels=shape))


def test_an_artefact_of_images_is_evaluated_in_process(bench: BenchSuite, tmp_path: Path) -> None:
    """Every choice of 40 decisions and 5 copies by the image of its own copy: each pays 1."""
    snapshot = artefact_snapshot(open_artefact(exported(tmp_path / "artefact")))
    rollouts = LocalRollouts(TaskSet([bench.task("bench/image")]), RuntimeConfig())
    starts = tuple(start_id(Split.TEST, k) for k in range(5))
    (result,) = rollouts.run([EpisodeJob(0, starts, 0, acting=Acting(), copies=3)], snapshot)
    assert [one.episode_return for one in result.summaries] == [40.0] * 5
    assert all(one.success_any for one in result.summaries)


def test_golden_images_are_checked_like_everything_else(tmp_path: Path) -> None:
    artefact = exported(tmp_path / "artefact")
    with np.load(artefact / "golden.npz") as archive:
        golden = {name: archive[name] for name in archive.files}
    manifest = open_artefact(artefact).manifest
    golden["pixels"] = np.ascontiguousarray(golden["pixels"][:, :, :, :2])
    with pytest.raises(IntegrityError, match="pixels should be uint8"):
        write_artefact(tmp_path / "other", graph(), manifest, golden)
    assert not (tmp_path / "other").exists()
    shutil.rmtree(artefact)


def test_the_graph_of_mixed_tasks_is_the_policy_of_each() -> None:
    """States, images, both; choices and continuous actions: the oracle is what training uses."""
    torch.manual_seed(0)
    config = PolicyConfig(
        torso=TorsoConfig(width=16, depth=1), pixels=PixelEncoderConfig(features=8), normalise_until=0
    )
    actor = TaskActor(MIXED, config).eval()
    for parameter in actor.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    controller = TaskController(actor.observer, actor.network, MIXED).requires_grad_(False)
    draws = np.random.default_rng(1)
    sizes = (3, 5, 0, 2)
    states = [draws.normal(size=(20, size)).astype(np.float32) for size in sizes]
    states[2] = np.zeros((0, 0), dtype=np.float32)
    images = [draws.integers(0, 256, (20 if k > 1 else 0, 2, 36, 36), dtype=np.uint8) for k in range(4)]
    cases = controller_cases(controller, states, MIXED, 0, 4, images)
    session = onnxruntime.InferenceSession(
        controller_graph(controller, MIXED), providers=["CPUExecutionProvider"]
    )
    feeds = {name: cases[name] for name in ("state", "pixels", "task")}
    (chunk,) = session.run(["chunk"], feeds)
    np.testing.assert_allclose(chunk, cases["chunk"], atol=1e-6)
    every = np.arange(4)
    for row in range(4):
        # one row of every task, as training batches them
        rows = every * 4 + row
        buckets = {
            "state": Bucket(torch.from_numpy(cases["state"][rows[[0, 1, 3]]]), torch.tensor([0, 1, 3])),
            "pixels": Bucket(torch.from_numpy(cases["pixels"][rows[[2, 3]]][:, None]), torch.tensor([2, 3])),
        }
        batch = StepBatch(torch.arange(4), torch.ones(4, 1), buckets, {})
        with torch.no_grad():
            found = actor.distribution(batch)
        mine = chunk[rows, 0]
        np.testing.assert_allclose(mine[[0, 3], :3], found.mean[:, 0].clamp(-1, 1), atol=1e-5)
        np.testing.assert_allclose(mine[[1, 2], 3:], found.log_policy[:, 0].exp(), atol=1e-5)
        assert (mine[[0, 3], 3:] == 0).all() and (mine[[1, 2], :3] == 0).all()
