"""Deployment of an artefact on a robot in real time.

`artefact/` holds the exported policy, `guard/` the limits, `realtime/` the processes of policy and servo and
their shared memory, `robots/` the robot's process, `flight/` a whole deployment with its log and report.
Imports go in this order. `artefact/export.py` needs torch, so it is imported by its path.
"""

from typing import TYPE_CHECKING

from mtrl.lazy import lazy_names

if TYPE_CHECKING:
    from .artefact.contents import Artefact, open_artefact
    from .artefact.files import VerificationReport, verify, write_artefact
    from .artefact.joints import Joint, Quantity
    from .artefact.manifest import (
        Limits,
        Manifest,
        TaskEntry,
        TrainingProvenance,
        read_manifest,
    )
    from .artefact.policy import ArtefactPolicy, artefact_policy, artefact_snapshot
    from .flight.flight import Flight, replay
    from .flight.joint_replay import JointReplay, replay_joints
    from .flight.log import read_flight
    from .flight.report import DeploymentReport, EpisodeReport
    from .flight.session import REPORTS, compatible_task, deploy
    from .flight.shadow import ShadowFinding, shadow_finding
    from .guard.guard import Guard, GuardedAction, GuardFlag, GuardState, Transition
    from .guard.limits import GuardConfig, RobotConfig
    from .realtime.latency import Latency, LatencyReport, latency_apart, measure_latency
    from .robots.robot import Connect, Robot, permitted_mode, run_robot

__all__ = [
    "REPORTS",
    "Artefact",
    "ArtefactPolicy",
    "Connect",
    "DeploymentReport",
    "EpisodeReport",
    "Flight",
    "Guard",
    "GuardConfig",
    "GuardFlag",
    "GuardState",
    "GuardedAction",
    "Joint",
    "JointReplay",
    "Latency",
    "LatencyReport",
    "Limits",
    "Manifest",
    "Quantity",
    "Robot",
    "RobotConfig",
    "ShadowFinding",
    "TaskEntry",
    "TrainingProvenance",
    "Transition",
    "VerificationReport",
    "artefact_policy",
    "artefact_snapshot",
    "compatible_task",
    "deploy",
    "latency_apart",
    "measure_latency",
    "open_artefact",
    "permitted_mode",
    "read_flight",
    "read_manifest",
    "replay",
    "replay_joints",
    "run_robot",
    "shadow_finding",
    "verify",
    "write_artefact",
]

__getattr__, __dir__ = lazy_names(__name__)
