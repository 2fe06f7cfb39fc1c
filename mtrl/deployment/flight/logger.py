"""The process that writes flight logs: `python -m mtrl.deployment.flight.logger`.

It drains the flight ring while the servo goes on, at normal priority, and finishes the log with what the
session says ended the flight, or with the end of the session itself.
"""

from __future__ import annotations

import time
from pathlib import Path

from ..artefact.manifest import Manifest
from ..realtime.processes import ProcessContext, run_child
from ..realtime.records import ControlField, EpisodeSpec
from .flight import Flight
from .recorder import FlightRecorder

POLL_S = 0.02
"""Time between two looks at the ring."""
LAST_S = 0.2
"""For so long rows are waited for after the session has died: the servo notices within a tick."""
ORPHANED = "the process of deploy ended"


def main(context: ProcessContext) -> None:
    """Writes the log of every episode of the session."""
    manifest = Manifest.from_json(context.spec.manifest)
    for number, episode in enumerate(context.spec.episodes, start=1):
        context.wait_for(number, ControlField.GO)
        _write(context, manifest, number, episode)
        context.memory.control[ControlField.LOGGER_DONE] = number


def _write(context: ProcessContext, manifest: Manifest, number: int, episode: EpisodeSpec) -> None:
    memory, entry = context.memory, manifest.task(episode.task)
    recorder = FlightRecorder(Path(episode.log), memory, number, Flight.begun(context.spec, episode, entry))
    while memory.control[ControlField.ENDING] < number and not context.orphaned:
        recorder.update()
        time.sleep(POLL_S)
    if memory.control[ControlField.ENDING] >= number:
        recorder.close(memory.ending)
    else:
        time.sleep(LAST_S)
        recorder.close(ORPHANED)


if __name__ == "__main__":
    run_child(main)
