"""A run from demonstrations to a robot: its configuration, its stages and what they keep."""

from typing import TYPE_CHECKING

from mtrl.lazy import lazy_names

if TYPE_CHECKING:
    from mtrl.run_directory import WATCHED

    from .config import (
        STAGE_NAMES,
        Config,
        TasksConfig,
        TrackingConfig,
        agent_of,
        anchored,
        run_name,
        run_stem,
        task_set_of,
        tasks_stem,
    )
    from .console import RESUME, Interrupted, log, log_continuation, log_interruption, resume_command
    from .demonstrations import collect_into
    from .evaluation_stages import REALTIME_STARTS
    from .fitting import clock_of, fit
    from .learners import RankWork, evaluate_here, train_rank
    from .parents import parents_of
    from .policies import (
        artefact_of,
        artefact_tasks,
        chosen_policies,
        find_policy,
        is_artefact,
        is_scripted,
        load_artefact,
        load_policy,
        save_policy,
    )
    from .requirements import DEMONSTRATION_BYTES, require_writable
    from .session import Session, open_session, session_in
    from .stages import STAGES, Stage, log_what_is_kept, require_resources, run_stages, stages_of
    from .synthesis import synthesise_into
    from .training_stages import distill_stage
    from .videos import EvaluationVideos, choose_renderer, load_subject, print_videos, record_all

__all__ = [
    "DEMONSTRATION_BYTES",
    "REALTIME_STARTS",
    "RESUME",
    "STAGES",
    "STAGE_NAMES",
    "WATCHED",
    "Config",
    "EvaluationVideos",
    "Interrupted",
    "RankWork",
    "Session",
    "Stage",
    "TasksConfig",
    "TrackingConfig",
    "agent_of",
    "anchored",
    "artefact_of",
    "artefact_tasks",
    "choose_renderer",
    "chosen_policies",
    "clock_of",
    "collect_into",
    "distill_stage",
    "evaluate_here",
    "find_policy",
    "fit",
    "is_artefact",
    "is_scripted",
    "load_artefact",
    "load_policy",
    "load_subject",
    "log",
    "log_continuation",
    "log_interruption",
    "log_what_is_kept",
    "open_session",
    "parents_of",
    "print_videos",
    "record_all",
    "require_resources",
    "require_writable",
    "resume_command",
    "run_name",
    "run_stages",
    "run_stem",
    "save_policy",
    "session_in",
    "stages_of",
    "synthesise_into",
    "task_set_of",
    "tasks_stem",
    "train_rank",
]

__getattr__, __dir__ = lazy_names(__name__)
