"""Files with seeded edits are refused by our errors, or read as they were.

An edit leaves the hashes as they were, or makes them right again. With right hashes other values are another
file with another root hash, which may be read as such; only an artefact is proved by more than its hashes,
since its graph names the manifest and has to compute the golden outputs.
"""

from __future__ import annotations

import random
import shutil
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from mtrl.errors import MtrlError

from ..sweeps import sample
from .edits import Edit, edit
from .subjects import SUBJECTS, Subject, same

FILES = 2_000


def outcome(subject: Subject, whole: object, place: Path, done: Edit) -> str:
    """One of "refused", "same" and "other", or the description of what may not be."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = subject.behave(place)
    except MtrlError:
        return "refused"
    except Exception:  # noqa: BLE001 - it is what is looked for
        return f"{done}: {traceback.format_exc(limit=-4)}"
    if same(whole, found, subject.tolerance):
        return "same"
    if subject.proved or (not done.signed and (place / "sealed").exists()):
        return f"{done}: accepted with another behaviour"
    return "other"


def read_edited(format_name: str, numbers: Iterable[int], folder: Path) -> Counter[str]:
    """Outcomes of the files with these numbers; failures among them under their descriptions."""
    subject = SUBJECTS[format_name]
    original = folder / "original"
    original.mkdir()
    subject.make(original)
    if any(original.rglob("manifest.sha256")):
        (original / "sealed").touch()
    whole = subject.behave(original)
    outcomes: Counter[str] = Counter()
    for number in numbers:
        place = folder / "edited"
        shutil.copytree(original, place)
        sealed = next((path.parent for path in place.rglob("manifest.sha256")), place)
        done = edit(sealed, random.Random(f"{format_name} {number}"))
        outcomes[outcome(subject, whole, place, done)] += 1
        shutil.rmtree(place)
    return outcomes


def _require_none_wrong(outcomes: Counter[str]) -> None:
    wrong = [text for text in outcomes if text not in ("refused", "same", "other")]
    assert not wrong, f"{len(wrong)} of {outcomes.total()}:\n" + "\n".join(wrong[:10])


@pytest.mark.parametrize("format_name", SUBJECTS)
def test_edited_files_of_today(format_name: str, tmp_path: Path) -> None:
    count = FILES // len(SUBJECTS)
    _require_none_wrong(read_edited(format_name, sample(range(count), share=40), tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("format_name", SUBJECTS)
def test_edited_files(format_name: str, tmp_path: Path) -> None:
    count = -(-FILES // len(SUBJECTS))
    outcomes = read_edited(format_name, range(count), tmp_path)
    print(format_name, dict(outcomes))
    _require_none_wrong(outcomes)
    assert outcomes["refused"] > count // 10
