"""Learners under Ray Train: one process per rank, all started again where one is lost."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

# read by Ray Train: how soon a lost learner is noticed, and that nothing of it goes to stderr
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
os.environ.setdefault("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", "60")

import ray
from ray import train
from ray.exceptions import RayActorError
from ray.train.torch import TorchConfig
from ray.train.v2.api.config import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.torch.torch_trainer import TorchTrainer
from ray.util import get_current_placement_group, remove_placement_group
from ray.util.placement_group import PlacementGroup

from mtrl.atomic import remove_directory
from mtrl.errors import EnvironmentFault, RankError, ResourceError
from mtrl.reducer import ALONE, TIMEOUT, Gloo, Reducer
from mtrl.rollout import CollectionConfig, FaultHandler, PolicySnapshot, RemoteError, RuntimeConfig
from mtrl.tasks import TaskSet

from .cluster import actor_environment, joined
from .evaluator import Evaluate, RemoteEvaluations, start_evaluator
from .remote_fragments import RemoteFragments
from .weights import on_this_node

logger = logging.getLogger(__name__)

RANK_SEED = 500_009
"""Added to the seed of the lanes, times the rank."""

POLL_SECONDS = 0.2
"""Time between two looks at the learners, and between two reports of theirs."""
STARTS_WITHOUT_PROGRESS = 5
"""Starts of the learners in a row, with no step between them, after which the run ends."""
FAILURE_SECONDS = 3.0
"""How long a rank that lost another waits for the reason, before it takes the other for dead."""


@dataclass(frozen=True)
class Stream:
    """Continuous collection for learners."""

    collection: CollectionConfig
    snapshot: PolicySnapshot
    """A policy of the kind that will collect; the learners publish their own."""
    seed: int


@dataclass(frozen=True)
class Progress:
    """How far the learners have come."""

    steps: int = 0
    shown: Mapping[str, float | str] = field(default_factory=dict)
    """What a bar shows beside the steps."""
    starts: int = 0
    """Times that all learners were started."""
    pids: tuple[int, ...] = ()
    """Process of each rank."""


class RunControl:
    """The actor between the command and its learners: progress one way, the request to stop the other."""

    def __init__(self) -> None:
        """Nothing has started."""
        self._steps, self._shown, self._stop = 0, cast("Mapping[str, float | str]", {}), False
        self._starts: dict[str, int] = {}
        self._pids: dict[int, int] = {}
        self._began_at: list[int] = []
        self._failure: RemoteError | None = None
        self._faults: list[tuple[EnvironmentFault, bool]] = []
        self._places: list[PlacementGroup] = []

    def start(self, group: str, rank: int, pid: int, place: PlacementGroup | None = None) -> tuple[int, int]:
        """Counts a start of all ranks, which have the name of their group in common and run in `place`;
        returns its number, and the steps that were reported so far.
        """
        if place is not None and rank == 0:
            self._places.append(place)
        if group not in self._starts:
            self._starts[group] = len(self._starts) + 1
            self._began_at.append(self._steps)
        self._pids[rank] = pid
        recent = self._began_at[-STARTS_WITHOUT_PROGRESS:]
        if len(recent) == STARTS_WITHOUT_PROGRESS and recent[0] == self._steps:
            why = f"the learners were lost {len(recent) - 1} times in a row before they came to the next step"
            self._failure = RemoteError(ResourceError.__module__, "ResourceError", why, {}, "")
        return self._starts[group], self._steps

    def places(self) -> list[PlacementGroup]:
        """Where learners were started since the last call."""
        found, self._places = self._places, []
        return found

    def report(self, steps: int, shown: Mapping[str, float | str]) -> bool:
        """Takes the progress of rank 0; returns whether a stop was requested."""
        self._steps, self._shown = max(steps, self._steps), shown
        return self._stop

    def fail(self, error: RemoteError) -> None:
        """Ends the run with an error; the first one counts."""
        self._failure = self._failure or error

    def failure(self) -> RemoteError | None:
        """The error with which the run ends."""
        return self._failure

    def fault(self, fault: EnvironmentFault, last: bool) -> None:
        """Keeps a fault of an environment for the command."""
        self._faults.append((fault, last))

    def look(self, stop: bool) -> tuple[Progress, list[tuple[EnvironmentFault, bool]]]:
        """Progress, and the faults since the last look; `stop` requests a stop."""
        self._stop = self._stop or stop
        faults, self._faults = self._faults, []
        pids = tuple(pid for _, pid in sorted(self._pids.items()))
        return Progress(self._steps, self._shown, len(self._starts), pids), faults


@dataclass
class Learner:
    """One rank, in its own process."""

    reducer: Reducer
    actors: int
    """Its share of the rollout actors."""
    fragments: RemoteFragments | None
    """Its stream, where the agent learns from one."""
    evaluations: RemoteEvaluations | None
    """Its evaluator, where the run has one."""
    control: Any
    """Handle of the `RunControl`."""
    counted: int = 0
    """Steps that the learners before this one had reported."""
    stop: bool = False
    """Whether the command asked to stop; known after `show`."""
    _shown_at: float = 0.0
    _answer: Any = None

    def show(self, steps: int, shown: Mapping[str, float | str]) -> None:
        """Reports progress of rank 0, now and then, without waiting for it to arrive."""
        if self.reducer.rank or time.monotonic() - self._shown_at < POLL_SECONDS:
            return
        if self._answer is not None:
            self.stop = bool(ray.get(self._answer))
        self._answer, self._shown_at = self.control.report.remote(steps, shown), time.monotonic()

    def fault(self, fault: EnvironmentFault, last: bool) -> None:
        """Reports a fault of an environment."""
        _report_fault(self.control, fault, last)

    def saved(self, step: int, place: Path) -> None:
        """Reports a checkpoint to Ray Train, every rank at once: where it is, for the run keeps it itself."""
        with tempfile.TemporaryDirectory() as folder:
            text = json.dumps({"step": step, "path": str(place)})
            Path(folder, "checkpoint.json").write_text(text, encoding="utf-8")
            train.report({"step": step}, checkpoint=train.Checkpoint.from_directory(folder))


def learn_on_ray(
    body: Callable[[Learner], None],
    tasks: TaskSet,
    config: RuntimeConfig,
    place: Path,
    *,
    stream: Stream | None,
    evaluate: Evaluate | None,
    on_look: Callable[[Progress], bool],
    on_fault: FaultHandler,
    gpus: bool = False,
) -> None:
    """Runs `body` in `config.learners` processes until it returns on every rank.

    The command keeps the rollout actors of `stream`, a share for every rank, and an evaluator. Where a
    learner or its node is lost, and where Ray Train itself is, all learners start again, and `body` goes on
    from what it kept. `on_look` gets the progress several times a second and returns whether to stop. Ray
    Train's own records lie in `place` meanwhile, which every node must see.

    Raises ResourceError as `actor_shares` does, and the error of mtrl that a rank raised.
    """
    with ExitStack() as closing:
        closing.enter_context(joined(config))
        total = int(ray.cluster_resources().get("CPU", 0))
        shares = actor_shares(config, total, evaluate is not None)
        fragments: list[RemoteFragments | None] = [None] * config.learners
        for rank, actors in enumerate(shares if stream is not None else []):
            assert stream is not None, "only a stream has servers"
            own, seed = replace(config, actors=actors, learners=0), stream.seed + RANK_SEED * rank
            server = RemoteFragments.start(tasks, own, stream.collection, stream.snapshot, seed)
            closing.callback(server.end)
            fragments[rank] = server
        control = ray.remote(RunControl).options(
            num_cpus=0, scheduling_strategy=on_this_node(), runtime_env=actor_environment()
        )
        handle = cast("Any", control.remote())
        closing.callback(ray.kill, handle)
        evaluator = None if evaluate is None else start_evaluator(evaluate)
        if evaluator is not None:
            closing.callback(ray.kill, evaluator)
        settings = {
            "body": body,
            "control": handle,
            "gpus": gpus,
            "actors": shares,
            "fragments": fragments,
            "evaluator": evaluator,
        }
        if place.exists():
            remove_directory(place)
        closing.callback(remove_directory, place)
        place.mkdir(parents=True)
        _supervise(partial(_trainer, settings, place, uuid.uuid4().hex[:12]), handle, on_look, on_fault)


def actor_shares(config: RuntimeConfig, processor_count: int, evaluates: bool) -> list[int]:
    """Rollout actors of each rank: `config.actors`, or all of the processors that are left to them.

    Raises ResourceError when the cluster is too small.
    """
    ranks = config.learners
    actors = config.actors or max(ranks, processor_count - ranks - 1)
    if actors < ranks:
        raise ResourceError(
            f"runtime.actors={actors} is fewer than runtime.learners={ranks}, each of which learns from "
            f"actors of its own; set runtime.actors to {ranks} or more, or lower runtime.learners"
        )
    if (needed := actors + ranks + evaluates) > processor_count:
        raise ResourceError(
            f"{actors} rollout actors, {ranks} learners{' and an evaluator' * evaluates} need {needed} "
            f"processors; the cluster has {processor_count}. Lower runtime.actors or runtime.learners"
        )
    return [actors // ranks + (rank < actors % ranks) for rank in range(ranks)]


def _supervise(
    make: Callable[[], TorchTrainer],
    control: Any,  # noqa: ANN401 - a handle of Ray
    on_look: Callable[[Progress], bool],
    on_fault: FaultHandler,
) -> None:
    """Keeps Ray Train running until the learners are done, and the command informed."""
    outcome: list[BaseException] = []

    def fit() -> None:
        try:
            while ray.get(control.failure.remote()) is None:
                try:
                    make().fit()
                    return
                except RayActorError:
                    # Ray Train's controller was lost; another one of the same name goes on
                    logger.warning("Ray Train's controller was lost; the learners start again")
                    # Ray Train frees what it had reserved only where the cluster has a dashboard
                    for place in ray.get(control.places.remote()):
                        remove_placement_group(place)
        except BaseException as error:  # noqa: BLE001 - raised below, by the command's own thread
            outcome.append(error)

    # Ray Train takes Ctrl-C for itself where it runs in the main thread
    thread = threading.Thread(target=fit, name="mtrl-learners", daemon=True)
    thread.start()
    stop, over = False, False
    while not over:
        thread.join(POLL_SECONDS)
        over = not thread.is_alive()
        progress, faults = ray.get(control.look.remote(stop))
        for fault, last in faults:
            on_fault(fault, last)
        stop = on_look(progress)
    failure: RemoteError | None = ray.get(control.failure.remote())
    if failure is not None:
        raise failure.error()
    if outcome:
        raise outcome[0]


def _trainer(settings: Mapping[str, Any], place: Path, name: str) -> TorchTrainer:
    """A trainer of the same name continues what the last one began."""
    gpus = settings["gpus"]
    return TorchTrainer(
        _learn,
        train_loop_config=dict(settings),
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo", timeout_s=int(TIMEOUT)),
        scaling_config=ScalingConfig(
            num_workers=len(settings["fragments"]),
            use_gpu=gpus,
            resources_per_worker={"CPU": 1, **({"GPU": 1} if gpus else {})},
        ),
        run_config=RunConfig(
            name=name,
            storage_path=str(place),
            failure_config=FailureConfig(max_failures=-1, controller_failure_limit=5),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            worker_runtime_env=actor_environment(),
        ),
    )


def _learn(settings: Mapping[str, Any]) -> None:
    """The function that Ray Train runs on every rank."""
    control, context = settings["control"], train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    reducer: Reducer = ALONE
    if size > 1:
        reducer = Gloo(backend="nccl", device="cuda") if settings["gpus"] else Gloo()
    group = reducer.broadcast(uuid.uuid4().hex)
    start, counted = cast(
        "tuple[int, int]",
        ray.get(control.start.remote(group, rank, os.getpid(), get_current_placement_group())),
    )
    if ray.get(control.failure.remote()) is not None:
        return
    try:
        fragments: RemoteFragments | None = settings["fragments"][rank]
        if fragments is not None:
            fragments.consumer = start
            fragments.on_fault = partial(_report_fault, control)
        evaluator = settings["evaluator"]
        evaluations = None if evaluator is None else RemoteEvaluations(evaluator)
        actors = settings["actors"][rank]
        settings["body"](Learner(reducer, actors, fragments, evaluations, control, counted))
    except RankError:
        deadline = time.monotonic() + FAILURE_SECONDS
        while ray.get(control.failure.remote()) is None:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_SECONDS)
    except Exception as error:  # noqa: BLE001 - raised by the command; Ray Train would try for ever
        ray.get(control.fail.remote(RemoteError.of(error)))


def _report_fault(control: Any, fault: EnvironmentFault, last: bool) -> None:  # noqa: ANN401
    control.fault.remote(fault, last)
