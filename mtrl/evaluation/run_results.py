"""The results that a run's folder holds, the newest of each policy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mtrl.errors import ConfigError

from .result_file import read_result
from .results import EvaluationResult


@dataclass(frozen=True)
class KeptResult:
    """A result and the file it was read from."""

    path: Path
    result: EvaluationResult


def newest_results(run: Path) -> dict[str, KeptResult]:
    """Label -> the newest result of that policy in `<run>/evaluations`, in the order of the labels.

    The newest is the one made last, of two made in the same second the one whose file name comes last.

    Raises:
        ConfigError: there are none.
        IntegrityError: a result file is damaged; the message names it.
    """
    kept: dict[str, KeptResult] = {}
    for path in sorted((run / "evaluations").glob("*.json")):
        result = read_result(path)
        older = kept.get(result.policy.label)
        if older is None or result.provenance.created >= older.result.provenance.created:
            kept[result.policy.label] = KeptResult(path, result)
    if not kept:
        raise ConfigError(f"{run} holds no evaluation; make one with: mtrl evaluate {run}")
    return dict(sorted(kept.items()))
