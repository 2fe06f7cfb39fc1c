"""The tables of a run on the terminal, random play beside them."""

from __future__ import annotations

from mtrl.evaluation import EvaluationResult, are_comparable, print_results, read_result, write_result
from mtrl.report import learning_table
from mtrl.rollout import PolicySnapshot

from .session import Session

RANDOM = "random"
"""Label of the result of random play."""


def show_results(session: Session, results: list[EvaluationResult]) -> list[EvaluationResult]:
    """Prints the policies side by side and, for a run that learned while it collected, from before to after.

    With `evaluation.random`, random play is judged on the same starts first; it is the last of what returns.
    """
    if session.config.evaluation.random:
        results = [*results, judge_random(session, results[0])]
    print_results(results, session.console)
    learned = learning_table(session.run.path, results)
    if learned is not None:
        session.console.print(learned)
    return results


def judge_random(session: Session, beside: EvaluationResult) -> EvaluationResult:
    """Random play on the starts of `beside`; a result that is there is read. Costs simulation alone."""
    file, protocol = session.run.evaluations / f"{RANDOM}-0.json", session.config.evaluation
    if file.exists():
        found = read_result(file)
        if found.seed == protocol.seed and are_comparable(beside, found):
            return found
    found = session.evaluate(PolicySnapshot(RANDOM), RANDOM, RANDOM)
    write_result(file, found, overwrite=True)
    return found
