"""Evaluation: results on fixed starts, statistics, comparison, tables and the report of a run."""

from .comparison import Comparison, are_comparable, compare, require_comparable
from .protocol import EvaluationConfig, evaluate, evaluation_jobs
from .provenance import Provenance
from .realtime import LatencySummary, RealtimeEpisode, read_deployment, read_latency
from .records import Json, read_json, write_record
from .report import write_report
from .result_file import read_result, write_result
from .results import (
    EpisodeResult,
    EvaluationResult,
    MeanResult,
    PolicyReference,
    Rate,
    TaskResult,
    from_episodes,
)
from .statistics import (
    Estimate,
    interquartile_mean,
    mean_rate_interval,
    paired_bootstrap,
    probability_of_improvement,
    stratified_bootstrap,
    uniform_beta_interval,
    wilson_interval,
)
from .table import format_rate, print_results, success_table

__all__ = [
    "Comparison",
    "EpisodeResult",
    "Estimate",
    "EvaluationConfig",
    "EvaluationResult",
    "Json",
    "LatencySummary",
    "MeanResult",
    "PolicyReference",
    "Provenance",
    "Rate",
    "RealtimeEpisode",
    "TaskResult",
    "are_comparable",
    "compare",
    "evaluate",
    "evaluation_jobs",
    "format_rate",
    "from_episodes",
    "interquartile_mean",
    "mean_rate_interval",
    "paired_bootstrap",
    "print_results",
    "probability_of_improvement",
    "read_deployment",
    "read_json",
    "read_latency",
    "read_result",
    "require_comparable",
    "stratified_bootstrap",
    "success_table",
    "uniform_beta_interval",
    "wilson_interval",
    "write_record",
    "write_report",
    "write_result",
]
