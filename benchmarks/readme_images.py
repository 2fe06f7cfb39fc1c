"""The two pictures of README: a still of a film, and a chart of what the policies of one run reach.

mtrl watch runs/quickstart task=metaworld/drawer-open-v3 --policy student --out film
python benchmarks/readme_images.py runs/quickstart film/student-metaworld-drawer-open-v3-2.mp4
"""

from __future__ import annotations

import sys
from pathlib import Path

import imageio.v3 as iio
import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

from mtrl.evaluation import EvaluationResult, read_result

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
POLICIES = ("teacher", "student", "bc")
MOMENT = 0.35
"""Share of the film at which the still is taken."""


def still(film: Path) -> None:
    """One frame of the film."""
    frames = iio.imread(film)
    iio.imwrite(IMAGES / "still.jpg", frames[int(MOMENT * len(frames))])


def chart(results: list[EvaluationResult]) -> None:
    """Success per task and policy with Wilson intervals."""
    names = results[0].task_names
    figure, axes = plt.subplots(figsize=(6.4, 3.2), dpi=100, layout="constrained")
    for place, result in enumerate(results):
        rates = [task.success_any for task in result.tasks]
        values = np.array([[rate.rate, rate.rate - rate.low, rate.high - rate.rate] for rate in rates]).T
        rows = np.arange(len(names)) + 0.27 * (place - 1)
        axes.barh(rows, 100 * values[0], 0.25, xerr=100 * values[1:].clip(0), label=result.policy.label)
    axes.set_yticks(np.arange(len(names)), [name.partition("/")[2] for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("success on test starts, %, with 95% Wilson intervals")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    figure.savefig(IMAGES / "success.png")


def main() -> None:
    """Draws both from a run and a film of it."""
    run, film = Path(sys.argv[1]), Path(sys.argv[2])
    IMAGES.mkdir(exist_ok=True)
    still(film)
    chart([read_result(next((run / "evaluations").glob(f"{label}-*.json"))) for label in POLICIES])


if __name__ == "__main__":
    main()
