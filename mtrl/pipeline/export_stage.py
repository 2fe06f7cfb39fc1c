"""The stage that exports a policy of a run as an artefact: its student, or a teacher of one forward pass."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtrl import registry
from mtrl.deployment import (
    Joint,
    Manifest,
    Robot,
    RobotConfig,
    TaskEntry,
    TrainingProvenance,
    latency_apart,
    write_artefact,
)
from mtrl.deployment.robots.fit import named_for
from mtrl.deployment.robots.site import read_site
from mtrl.errors import ConfigError, UnsupportedError
from mtrl.evaluation import Provenance, read_result, write_record
from mtrl.rollout import Acting, EpisodeJob, Policy, PolicySnapshot, policy_from
from mtrl.tasks import Split, TaskSet, start_id
from mtrl.training import AgentFactory, OffersController, ServesMore

from .config import agent_of
from .policies import load_policy
from .requirements import Plan
from .session import Session

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class _Exported:
    """A policy to export."""

    label: str
    """Label of the policy in the run."""
    reason: str
    """Why this policy is exported."""
    snapshot: PolicySnapshot
    identity: str
    """Hash of the kept policy."""
    graph: bytes
    golden: dict[str, npt.NDArray[np.generic]]
    checked: str
    """Two other computations that agree with the golden cases, and how well."""
    shape: dict[str, Any] = field(default_factory=dict)
    """Fields of the manifest that differ from one observation in, one action out."""


def check_export(plan: Plan) -> int:
    """Refuses the stage before any work, where it could only fail at the end of it.

    Raises UnsupportedError for an agent that offers no controller in a run that distils no student.
    """
    if "distill" not in plan.config.stages and not (plan.run / "policies" / "student").exists():
        _require_controller(
            plan.name, plan.factory, plan.tasks, "add the stage 'distill', or leave 'export' out"
        )
    return 0


def _require_controller(name: str, factory: AgentFactory, tasks: TaskSet, advice: str) -> OffersController:
    """The factory, where it offers the policy of these tasks as a controller; raises UnsupportedError."""
    serves = factory.controller_serves if isinstance(factory, ServesMore) else ()
    refused = [
        f"{kind} tasks ({', '.join(names)})"
        for kind, names in (
            ("pixels", [task.name for task in tasks if task.observation.pixels is not None]),
            ("discrete", [task.name for task in tasks if task.action.is_discrete]),
        )
        if names and kind not in serves
    ]
    if isinstance(factory, OffersController) and not refused:
        return factory
    of = f" for {' and '.join(refused)}" if isinstance(factory, OffersController) else ""
    raise UnsupportedError(
        f"agent {name!r} does not offer its policy as a controller of one forward pass{of}, and there is no "
        f"student; {advice}"
    )


def export_stage(session: Session) -> Path:
    """Exports the student, or the teacher of a run without one; parity is checked before anything is kept.

    A student must agree in torch, numpy and ONNX Runtime; a teacher, and a student that sees images, in
    torch, ONNX Runtime and the policy that was evaluated.
    """
    from mtrl.deployment.artefact.export import OPSET

    place = session.run.artefact
    if place.exists():
        return place
    found = _student(session) if (session.run.policies / "student").exists() else _teacher(session)
    session.log(f"exporting {session.called(found.label)}: {found.reason}")
    entries, joints = entries_for_robot(session.config.robot, session.tasks)
    manifest = Manifest(
        tasks=entries,
        joints=joints,
        pixels=session.tasks.layout.pixels_shape or (),
        state_size=session.tasks.layout.state_size,
        action_size=session.tasks.layout.continuous_size + session.tasks.layout.discrete_size,
        choices=session.tasks.layout.discrete_size,
        opset=OPSET,
        provenance=_provenance(session, found),
        **found.shape,
    )
    artefact = write_artefact(place, found.graph, manifest, found.golden)
    session.log(f"artefact {artefact[:12]} at {place}; {found.checked}")
    # Ray's processes would be measured with it.
    session.close_rollouts()
    session.console.print("measuring latency: three times 20,000 calls, or ten seconds", highlight=False)
    latency = latency_apart(place) | {"policy": found.label}
    write_record(session.run.path / "latency.json", latency, overwrite=True)
    session.console.print(
        f"inference: p50 {latency['p50']:.0f} us, p99 {latency['p99']:.0f} us "
        f"({latency['calls']:,} calls, one thread, median of {latency['repeats']})",
        highlight=False,
    )
    return place


def entries_for_robot(config: RobotConfig, tasks: TaskSet) -> tuple[tuple[TaskEntry, ...], tuple[Joint, ...]]:
    """The tasks, and for a robot of joints what their entries are there, and its joints with their limits."""
    entries = tuple(TaskEntry.of(task, k) for k, task in enumerate(tasks))
    robot: Robot = registry.load("robot", config.name)
    if robot.site is None:
        return entries, ()
    site = read_site(robot.site(config))
    return tuple(named_for(entry, site) for entry in entries), site.joints


def _student(session: Session) -> _Exported:
    from mtrl.distillation import (
        PixelStudentPolicy,
        chunk_module_of,
        export_onnx,
        golden_cases,
        require_reference_parity,
    )

    snapshot, identity = load_policy(session.run.policies / "student", session.tasks)
    policy = policy_from(snapshot, session.tasks)
    if isinstance(policy, PixelStudentPolicy):
        reason = "it was distilled for this"
        return _controller(session, "student", reason, snapshot, identity, policy.student, policy)
    student = chunk_module_of(policy)
    golden = golden_cases(student, session.tasks.layout, session.config.seed)
    error = require_reference_parity(student, golden)
    spec, execution = student.spec, student.execution
    if execution.adaptive or execution.delay:
        raise ConfigError(
            f"a controller carries out one chunk after the other; this student's has "
            f"execution.adaptive={execution.adaptive:g} and execution.delay={execution.delay}. Distil with "
            "distillation.execution.adaptive=0 distillation.execution.delay=0"
        )
    return _Exported(
        label="student",
        reason="it was distilled for this",
        snapshot=snapshot,
        identity=identity,
        graph=export_onnx(student),
        golden=golden,
        checked=f"torch and numpy differ by at most {error:.1e}",
        shape={
            "history": spec.history,
            "chunk": spec.chunk,
            "execute": execution.steps,
            "noise_size": spec.noise_size,
            "noise": execution.noise,
        },
    )


def _teacher(session: Session) -> _Exported:
    """The trained policy itself, when it is one forward pass."""
    run, tasks = session.run.path, session.tasks
    name, factory, _ = agent_of(session.config)
    offering = _require_controller(
        name, factory, tasks, f"distil one first: {shlex.join(['mtrl', 'distill', str(run)])}"
    )
    if not (session.run.policies / "teacher").exists():
        raise ConfigError(f"{run} has no finished policy to export; train one first")
    snapshot, identity = load_policy(session.run.policies / "teacher", session.tasks)
    controller = offering.controller(snapshot, tasks).requires_grad_(False).eval()
    reason = f"the run has no student, and a policy of agent {name!r} is one forward pass already"
    policy = factory.policy(snapshot, tasks)
    return _controller(session, "teacher", reason, snapshot, identity, controller, policy)


def _controller(
    session: Session,
    label: str,
    reason: str,
    snapshot: PolicySnapshot,
    identity: str,
    controller: nn.Module,
    policy: Policy,
) -> _Exported:
    """A module of one observation in, one action out, which acts as `policy` does."""
    from mtrl.deployment.artefact.export import controller_cases, controller_graph, require_policy_parity

    tasks = session.tasks
    seen = _visited(session, snapshot)
    nothing = np.zeros((0, 0), dtype=np.uint8)
    states, images = ([one.get(bucket, nothing) for one in seen] for bucket in ("state", "pixels"))
    golden = controller_cases(controller, states, tasks.layout, session.config.seed, images=images)
    error = require_policy_parity(policy, golden, tasks.layout)
    return _Exported(
        label=label,
        reason=reason,
        snapshot=snapshot,
        identity=identity,
        graph=controller_graph(controller, tasks.layout),
        golden=golden,
        checked=f"it and the policy that was evaluated differ by at most {error:.1e}",
    )


def _visited(session: Session, snapshot: PolicySnapshot) -> list[dict[str, npt.NDArray[Any]]]:
    """What the policy sees of every task in one episode, bucket -> [T + 1, ...]."""
    start = start_id(Split.VALIDATION, 0)
    seed, count = session.config.seed, len(session.tasks)
    jobs = [EpisodeJob(k, (start,), seed, acting=Acting(), copies=1, record=True) for k in range(count)]
    seen: dict[int, dict[str, npt.NDArray[Any]]] = {}
    with session.stopping_at_once("exporting"):
        for result in session.rollouts.run(jobs, snapshot):
            assert result.episodes is not None, "a job with record=True must return episodes"
            seen[result.job.task_index] = dict(result.episodes.observations)
    for k, task in enumerate(session.tasks):
        if k not in seen:
            raise ConfigError(
                f"task {task.name} cannot be played, and export needs states that it shows: "
                f"{session.rollouts.quarantined.get(k, 'no episode came back')}"
            )
    return [seen[k] for k in range(len(session.tasks))]


def _provenance(session: Session, found: _Exported) -> TrainingProvenance:
    """Provenance of the policy; its success only when that very policy was evaluated."""
    origin = Provenance.collect()
    file = session.run.evaluations / f"{found.label}-{found.snapshot.version}.json"
    success = interval = None
    if file.exists():
        evaluated = read_result(file)
        if evaluated.policy.identity == found.identity:
            rate = evaluated.mean.success_any
            if rate is not None:
                success, interval = rate.rate, (rate.low, rate.high)
    return TrainingProvenance(
        run=session.run.path.name,
        commit=origin.commit or "",
        seed=session.config.seed,
        success=success,
        success_interval=interval,
    )
