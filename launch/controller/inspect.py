"""`mtrl inspect`: what an artefact says of itself."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mtrl.deployment import open_artefact
from mtrl.evaluation.task_names import TaskNames
from mtrl.pipeline import log

from ..arguments import add_json, emit

EXAMPLES = (
    "mtrl inspect runs/quickstart/artefact",
    "mtrl inspect artefact           one that was copied here",
    "for artefact in runs/*/artefact; do mtrl inspect $artefact; done",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The artefact."""
    parser.add_argument("artefact", type=Path, help="folder of an artefact")
    add_json(parser, "the manifest")


def run(arguments: argparse.Namespace) -> int:
    """Prints the manifest of an artefact whose files have their hashes; nothing of the graph is run."""
    artefact = open_artefact(arguments.artefact)
    manifest = artefact.manifest
    console = Console(emoji=False)
    log(console, f"artefact {artefact.root}")
    table = Table(header_style="bold")
    for column in ("task", "state", "action", "rate", "limits"):
        table.add_column(column, justify="left" if column in ("task", "limits") else "right")
    names = TaskNames(dict.fromkeys(entry.name for entry in manifest.tasks))
    for entry in manifest.tasks:
        limits = entry.limits
        action = f"{entry.choices} choices" if entry.choices else str(entry.action_size)
        table.add_row(
            names.cell(entry.name),
            " + ".join(
                [str(entry.state_size)] * (entry.state_size > 0)
                + ["x".join(map(str, manifest.pixels)) + " image"] * entry.pixels
            ),
            action,
            f"{entry.rate_hz:g} Hz",
            f"action {limits.action:g}, rate {limits.rate:g}, observation {limits.observation:g}",
        )
    console.print(table)
    log(
        console,
        f"history {manifest.history}, chunk {manifest.chunk} of which {manifest.execute} are executed, noise "
        f"{manifest.noise_size}; ONNX operators {manifest.opset}, ONNX Runtime "
        f"{manifest.minimum_onnxruntime}, {len(artefact.graph) / 1e6:.2f} MB; schema {manifest.schema}",
    )
    for joint in manifest.joints:
        effort = "" if joint.effort is None else f", effort to {joint.effort:g}"
        log(
            console,
            f"joint {joint.name}: {joint.low:g} to {joint.high:g} {joint.unit}, {joint.velocity:g} "
            f"{joint.unit}/s{effort}; begins within {joint.start_low:g} to {joint.start_high:g}",
        )
    for entry in manifest.tasks:
        for what, found in (("observation", entry.observation), ("action", entry.action)):
            if found:
                listed = ", ".join(f"{item.term} [{item.unit or '-'}]" for item in found)
                log(console, f"{what} of {entry.name}: {listed}")
    origin = manifest.provenance
    success = "not evaluated" if origin.success is None else f"success {origin.success:.2f}"
    if origin.success_interval is not None:
        success += f" ({origin.success_interval[0]:.2f} to {origin.success_interval[1]:.2f})"
    made = f"run {origin.run or 'unknown'}, commit {origin.commit[:12] or 'unknown'}, seed {origin.seed}"
    log(console, f"{made}: {success}")
    emit(arguments, {"artefact": artefact.root, **asdict(manifest)})
    log(console, f"mtrl verify {arguments.artefact} proves that it computes here what it computed there")
    return 0
