"""What two ranks under Ray Train do in test_learners: they learn beside one process with all samples."""

from __future__ import annotations

import json
from pathlib import Path

from mtrl.distributed import Learner

from ..agents.rank_cases import SAC, TrainingBatch, prepared_noise, sac_beside_one


def body(folder: Path, names: tuple[str, ...], learner: Learner) -> None:
    """Writes what each rank found, by name of the case."""
    TrainingBatch.noise = prepared_noise  # type: ignore[method-assign]
    found = {name: sac_beside_one(learner.reducer, SAC[name]) for name in names}
    (folder / f"{learner.reducer.rank}.json").write_text(json.dumps(found))
