"""What gradients per task cost over a plain backward pass, and over the methods of peers.

    python benchmarks/gradients.py --json gradients.json

One thread. A torso of three layers and one head per task; forward and backward pass each time. Figures, each
the median over three processes of the median of interleaved runs, for 10 and 50 tasks; `_small` is 64
samples a task and width 256, the rest 128 and 400:

plain_ratio          time of per-task gradients, by the method chosen in the first steps, over that of the
                     plain gradient of the summed losses
loop_ratio           time of a loop over tasks, each with its own samples, over that of per-task gradients
best_ratio           time of per-task gradients over the better of that loop and the one backward
surgery_ratio        time of a whole PCGrad step (rows, Gramian, weights, combination) over the plain gradient
retain_graph_ratio   time of one autograd.grad per task on the joint graph over that of per-task gradients
torchjd_ratio        time of torchjd.autojac.backward on the joint graph over that of per-task gradients
autogram_ratio       time of a PCGrad step by torchjd.autogram (Gramian of the torso, weights, a weighted
                     backward pass) over that of ours; both are left out where torchjd is not installed
pcgrad_ms_k50        milliseconds of PCGrad's weights from a Gramian of 50 tasks
streamed_peak_ratio  peak memory of a step with the Gramian streamed over that of a plain step, 50 tasks, 5
                     million parameters; beyond what stands before the step
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from side_by_side import RUNS, interleave, median_of, publish, seconds_of
from torch import nn

from mtrl.gradients import (
    FastestMethod,
    GradientSurgery,
    SurgeryConfig,
    TaskJacobian,
    TaskRows,
    WeightingInputs,
    make_weighting,
)

BARS = {
    "plain_ratio_k10": "at most 1.15",
    "plain_ratio_k50": "at most 1.5",
    "plain_ratio_k10_small": "at most 1.15",
    "plain_ratio_k50_small": "at most 1.5",
    "best_ratio_k10": "at most 1",
    "best_ratio_k50": "at most 1",
    "best_ratio_k10_small": "at most 1",
    "best_ratio_k50_small": "at most 1",
    "pcgrad_ms_k50": "at most 1.5",
    "streamed_peak_ratio": "at most 1.3",
}
PROCESSES = 3
"""In which the methods are compared."""
SHAPES = {"": (128, 400), "_small": (64, 256)}
Part = tuple[dict[str, float], dict[str, object]]


def main() -> None:
    """Measures, prints, and writes the figures to --json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"interleaved runs ({RUNS})")
    parser.add_argument("--peak", choices=("plain", "streamed"), help="only print one step's peak memory, MB")
    parser.add_argument("--per-task", type=int, nargs=3, metavar="N", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peak:
        print(peak_of(arguments.peak))
        return
    if arguments.per_task:
        print(json.dumps(per_task(*arguments.per_task, arguments.runs)))
        return
    figures: dict[str, float] = {}
    details: dict[str, object] = {}
    for tasks in (10, 50):
        for suffix, (samples, width) in SHAPES.items():
            found, raw = per_task_apart(tasks, samples, width, arguments.runs)
            key = f"_k{tasks}{suffix}"
            figures |= {name + key: value for name, value in found.items()}
            details |= {name + key: value for name, value in raw.items()}
    for part in (weights, memory):
        found, raw = part(arguments.runs)
        figures |= found
        details |= raw
    publish("Gradients per task", figures, BARS, details, arguments.json)


class Critic(nn.Module):
    """A shared torso and one linear head per task."""

    def __init__(self, tasks: int, width: int, depth: int = 3, inputs: int = 53) -> None:
        super().__init__()
        torch.manual_seed(0)
        sizes = [inputs, *[width] * depth]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.torso = nn.Sequential(*layers)
        self.weight = nn.Parameter(torch.randn(tasks, width, 1) * width**-0.5)
        self.bias = nn.Parameter(torch.zeros(tasks, 1, 1))

    def losses(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """[K] of [K, B, d] and [K, B]."""
        found = torch.baddbmm(self.bias, self.torso(inputs), self.weight)
        return (found.squeeze(-1) - targets).square().mean(1)

    def loss(self, task: int, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """One task's, from its own samples alone."""
        found = self.torso(inputs[task]) @ self.weight[task] + self.bias[task]
        return (found.squeeze(-1) - targets[task]).square().mean()


def per_task_apart(tasks: int, samples: int, width: int, runs: int) -> Part:
    """Medians of `per_task` in a few processes: where in memory a process happens to keep its tensors moves
    all its ratios by some hundredths.
    """
    sizes = [str(size) for size in (tasks, samples, width)]
    command = [sys.executable, __file__, "--runs", str(runs), "--per-task", *sizes]
    parts = []
    for _ in range(PROCESSES):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        parts.append(json.loads(done.stdout.splitlines()[-1]))
    figures = {name: statistics.median(found[name] for found, _ in parts) for name in parts[0][0]}
    return figures, {"processes": [raw for _, raw in parts]}


def per_task(tasks: int, samples: int, width: int, runs: int) -> Part:
    """All methods, interleaved."""
    critic = Critic(tasks, width)
    batch = torch.randn(tasks, samples, 53), torch.randn(tasks, samples)
    parameters = list(critic.parameters())
    jacobian = TaskJacobian(critic)
    pattern = jacobian.rows(critic.losses(*batch))
    surgery = GradientSurgery(critic, SurgeryConfig("pcgrad", row_method="backward"), tasks)

    def plain() -> object:
        return torch.autograd.grad(critic.losses(*batch).sum(), parameters)

    def backward() -> TaskRows:
        return jacobian.rows(critic.losses(*batch))

    def loop() -> TaskRows:
        return jacobian.loop(lambda task: critic.loss(task, *batch), pattern)

    methods: dict[str, Callable[[], object]] = {"backward": backward, "loop": loop}
    choice = FastestMethod(tuple(methods))
    while not choice.chosen:
        method = choice.next()
        choice.record(method, seconds_of(methods[method]))
    rivals: dict[str, Callable[[], object]] = {
        "plain": plain,
        **methods,
        "surgery": lambda: surgery.step(critic.losses(*batch)),
    }
    # steps of a few milliseconds each: a median of ten would measure the machine, not the methods
    repeats = max(2, 4000 // (tasks * samples)) * runs
    raw = interleave({name: partial(seconds_of, work) for name, work in rivals.items()}, repeats)
    plain_s, chosen_s = raw["plain"], raw[choice.chosen]
    figures = {
        "plain_ratio": median_of(lambda a, b: b / a, plain_s, chosen_s),
        "loop_ratio": median_of(lambda a, b: a / b, raw["loop"], chosen_s),
        "best_ratio": median_of(lambda a, b, c: a / min(b, c), chosen_s, raw["backward"], raw["loop"]),
        "surgery_ratio": median_of(lambda a, b: b / a, plain_s, raw["surgery"]),
    }
    details: dict[str, object] = {"seconds": raw, "chosen": choice.chosen}
    if width == SHAPES[""][1]:
        found, more = against_peers(critic, batch, backward, surgery, 1 if tasks > 10 else runs)
        figures |= found
        details["peers"] = more
    return figures, details


def against_peers(
    critic: Critic,
    batch: tuple[torch.Tensor, torch.Tensor],
    ours: Callable[[], object],
    surgery: GradientSurgery,
    runs: int,
) -> Part:
    """The joint graph walked once per task, as LibMTL and TorchJD's autojac do, and TorchJD's autogram."""
    parameters = list(critic.parameters())

    def retained() -> None:
        losses = critic.losses(*batch)
        for task in range(len(losses)):
            torch.autograd.grad(losses[task], parameters, retain_graph=True)

    rivals: dict[str, Callable[[], object]] = {
        "ours": ours,
        "step": lambda: surgery.step(critic.losses(*batch)),
        "retain_graph": retained,
    }
    try:
        from torchjd.aggregation import PCGradWeighting
        from torchjd.autogram import Engine
        from torchjd.autojac import backward as torchjd_backward
    except ImportError:
        print("torchjd is not installed; its figures are left out")
    else:

        def torchjd() -> None:
            torchjd_backward(critic.losses(*batch))
            for parameter in parameters:
                del parameter.jac

        # hooks stay on a module, so it is one of its own; task losses are no batch to it
        observed = Critic(len(batch[0]), critic.torso[0].out_features)
        engine, weighting = Engine(observed.torso, batch_dim=None), PCGradWeighting()

        def autogram() -> None:
            losses = observed.losses(*batch)
            weights = weighting(engine.compute_gramian(losses))
            torch.autograd.grad(losses, list(observed.parameters()), weights)

        rivals |= {"torchjd": torchjd, "autogram": autogram}
    raw = interleave({name: partial(seconds_of, work) for name, work in rivals.items()}, runs)
    against = {"retain_graph": "ours", "torchjd": "ours", "autogram": "step"}
    ratios = {
        f"{name}_ratio": median_of(lambda a, b: a / b, raw[name], raw[base])
        for name, base in against.items()
        if name in rivals
    }
    return ratios, dict(raw)


def weights(runs: int) -> Part:
    """PCGrad on a Gramian with many conflicts."""
    rows = np.random.default_rng(0).normal(size=(50, 200))
    inputs = WeightingInputs(np.ones(50), rows @ rows.T)
    weighting = make_weighting("pcgrad", 50)
    raw = interleave({"pcgrad": lambda: seconds_of(lambda: weighting.weights(inputs))}, 20 * runs)
    milliseconds = [1e3 * value for value in raw["pcgrad"]]
    return {"pcgrad_ms_k50": median_of(lambda a: a, milliseconds)}, {"pcgrad_ms": milliseconds}


def memory(runs: int) -> Part:
    """One step in a process of its own, since a process never forgets its peak; medians of a few processes,
    since the allocator's luck moves the peak of one by a fifth.
    """
    del runs
    found: dict[str, list[float]] = {"plain": [], "streamed": []}
    for _ in range(PROCESSES):
        for kind, peaks in found.items():
            done = subprocess.run(
                [sys.executable, __file__, "--peak", kind], check=True, capture_output=True, text=True
            )
            peaks.append(float(done.stdout.split()[-1]))
    peak = {kind: statistics.median(peaks) for kind, peaks in found.items()}
    return {"streamed_peak_ratio": peak["streamed"] / peak["plain"]}, {"peak_mb": found}


def peak_of(kind: str) -> float:
    """MB that a step needs beyond the network and the batch."""
    tasks, samples = 50, 128
    critic = Critic(tasks, 1250, depth=4)
    batch = torch.randn(tasks, samples, 53), torch.randn(tasks, samples)
    surgery = GradientSurgery(critic, SurgeryConfig("pcgrad", memory_mb=1), tasks)
    warm = Critic(tasks, 16)
    warmed = GradientSurgery(warm, SurgeryConfig("pcgrad", memory_mb=0.01), tasks)
    warmed.assign(warmed.step(warm.losses(*batch)).gradients)
    # The kernel's high-water mark is set back: a process inherits that of its parent.
    Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes("VmRSS")
    for _ in range(2):
        if kind == "plain":
            critic.losses(*batch).sum().backward()
        else:
            surgery.assign(surgery.step(critic.losses(*batch)).gradients)
        critic.zero_grad(set_to_none=True)
    return (kilobytes("VmHWM") - before) / 1024


def kilobytes(field: str) -> int:
    """A size of this process, as Linux reports it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main()
