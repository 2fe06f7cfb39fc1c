"""Evaluation: results on fixed starts, statistics, comparison and tables."""

from typing import TYPE_CHECKING

from mtrl.lazy import lazy_names

if TYPE_CHECKING:
    from mtrl.reading import Json

    from .aggregates import (
        independent_bootstrap,
        interquartile_mean,
        mean_score,
        optimality_gap,
        performance_profile,
        performance_profile_band,
        probability_of_improvement,
        stratified_bootstrap,
    )
    from .broken import BrokenEpisode, UnmeasuredTask
    from .comparison import Comparison, TaskComparison, are_comparable, compare, doubts, require_comparable
    from .comparison_inputs import Entry, entries_of, group_alike, holds_results
    from .comparison_tables import comparison_table, group_table, group_verdict, verdict
    from .constant_action import best_constant
    from .formats import format_rate
    from .groups import (
        GroupComparison,
        GroupSummary,
        RunGroup,
        common_runs,
        compare_groups,
        run_group,
        summarise_group,
    )
    from .paired_tests import SequentialTest, exact_mcnemar, sequential_test
    from .pairs import common_episodes, left_out
    from .protocol import EvaluationConfig, evaluate, modes_of
    from .provenance import Provenance
    from .records import read_json, read_saved, write_record
    from .result_file import (
        KeptResult,
        newest_results,
        read_result,
        result_from_record,
        result_record,
        write_result,
    )
    from .results import (
        OWN,
        EpisodeResult,
        EvaluationResult,
        MeanResult,
        PolicyReference,
        Rate,
        TaskResult,
        from_episodes,
    )
    from .run_summary import summarise
    from .statistics import (
        Estimate,
        TaskMeans,
        bootstrap_means,
        mean_rate_interval,
        paired_differences,
        uniform_beta_interval,
        wilson_interval,
    )
    from .table import print_results, results_table

__all__ = [
    "OWN",
    "BrokenEpisode",
    "Comparison",
    "Entry",
    "EpisodeResult",
    "Estimate",
    "EvaluationConfig",
    "EvaluationResult",
    "GroupComparison",
    "GroupSummary",
    "Json",
    "KeptResult",
    "MeanResult",
    "PolicyReference",
    "Provenance",
    "Rate",
    "RunGroup",
    "SequentialTest",
    "TaskComparison",
    "TaskMeans",
    "TaskResult",
    "UnmeasuredTask",
    "are_comparable",
    "best_constant",
    "bootstrap_means",
    "common_episodes",
    "common_runs",
    "compare",
    "compare_groups",
    "comparison_table",
    "doubts",
    "entries_of",
    "evaluate",
    "exact_mcnemar",
    "format_rate",
    "from_episodes",
    "group_alike",
    "group_table",
    "group_verdict",
    "holds_results",
    "independent_bootstrap",
    "interquartile_mean",
    "left_out",
    "mean_rate_interval",
    "mean_score",
    "modes_of",
    "newest_results",
    "optimality_gap",
    "paired_differences",
    "performance_profile",
    "performance_profile_band",
    "print_results",
    "probability_of_improvement",
    "read_json",
    "read_result",
    "read_saved",
    "require_comparable",
    "result_from_record",
    "result_record",
    "results_table",
    "run_group",
    "sequential_test",
    "stratified_bootstrap",
    "summarise",
    "summarise_group",
    "uniform_beta_interval",
    "verdict",
    "wilson_interval",
    "write_record",
    "write_result",
]

__getattr__, __dir__ = lazy_names(__name__)
