"""The arguments of `mtrl compare` as named results: runs, result files and groups of either."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtrl.errors import ConfigError, UnknownNameError
from mtrl.run_directory import POLICIES, RunDirectory, split_label
from mtrl.structured import flat

from .result_file import KeptResult, newest_results, read_result
from .results import EvaluationResult

FREE_KEYS = ("seed", "name", "output", "stages", "evaluation", "runtime", "tracking", "robot")
"""Settings in which the runs of one group may differ: the seed, and what does not change a policy."""

PARENT_KEYS = ("init_from", "reference", "teacher", "student")
"""Settings that name another run, in which the runs of one group may differ by that run's seed."""


@dataclass(frozen=True)
class Entry:
    """One column of a comparison."""

    name: str
    """What it is called in the table."""
    text: str
    """What was written on the command line."""
    results: tuple[EvaluationResult, ...]
    """One, or one per run of a group."""
    files: tuple[Path, ...]
    """The files of the results."""
    runs: tuple[Path, ...]
    """The folders of the runs they belong to; empty for result files that no run holds."""

    def named(self) -> EvaluationResult:
        """The first result, called by the entry's name."""
        result = self.results[0]
        return dataclasses.replace(
            result, policy=dataclasses.replace(result.policy, label=self.name, agent="")
        )


@dataclass(frozen=True)
class _Item:
    """A run or a file before a policy was chosen."""

    text: str
    path: Path
    label: str
    """Empty where none was given."""
    kept: Mapping[str, KeptResult]
    is_run: bool


def entries_of(words: Sequence[str], policy: str | None) -> list[Entry]:
    """One entry per word; a single run gives one entry per policy of it.

    Raises:
        ConfigError: a path that is neither a run nor a result file nor a folder of them, a policy that
            cannot be chosen, the same result twice, or runs of a group that differ in more than their seed.
        UnknownNameError: a policy that a run does not have.
    """
    parsed = [_split(word) for word in words]
    items = [[_item(part) for part in parts] for _, parts in parsed]
    flat = [item for group in items for item in group]
    if len(flat) == 1 and policy is None and not flat[0].label and len(flat[0].kept) > 1:
        lone = flat[0]
        labels = sorted(lone.kept, key=lambda label: (label != POLICIES[0].label, label))
        items = [[dataclasses.replace(lone, label=label)] for label in labels]
        parsed = [("", [lone.text]) for _ in labels]
        words = [f"{label}@{lone.text}" for label in labels]
    else:
        shared = policy or _shared_label(flat)
        items = [[_with_label(item, shared) for item in group] for group in items]
    entries = [_entry(name, word, group) for (name, _), word, group in zip(parsed, words, items, strict=True)]
    _refuse_twice(entries)
    return _named_apart(entries, items)


def group_alike(entries: Sequence[Entry]) -> list[Entry]:
    """Groups entries whose runs have the same settings but for the seed, and the same policy's label.

    Raises:
        ConfigError: an entry that is a plain result file, which does not hold the settings of its run.
    """
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        if len(entry.results) > 1:
            groups[entry.text,] = [entry]
            continue
        if not entry.runs:
            raise ConfigError(
                f"--group needs runs; {entry.text} is a result file, which does not say how its policy was "
                "trained. Write groups as NAME=FILE,FILE"
            )
        key = (entry.results[0].policy.label, *(f"{k}={v}" for k, v in _settings(entry.runs[0]).items()))
        groups.setdefault(key, []).append(entry)
    merged = [
        Entry(
            name=_without_seed(group[0].name),
            text=group[0].text,
            results=tuple(result for entry in group for result in entry.results),
            files=tuple(path for entry in group for path in entry.files),
            runs=tuple(path for entry in group for path in entry.runs),
        )
        if len(group) > 1
        else group[0]
        for group in groups.values()
    ]
    if len({entry.name for entry in merged}) < len(merged):
        merged = [
            dataclasses.replace(new, name=old[0].name)
            for new, old in zip(merged, groups.values(), strict=True)
        ]
    return merged


def _split(word: str) -> tuple[str, list[str]]:
    """NAME=A,B into its name and parts; a path that exists is one part, whatever it is called."""
    if _exists(word) or "=" not in word:
        return "", [word]
    name, _, rest = word.partition("=")
    parts: list[str] = []
    pieces = [piece for piece in rest.split(",") if piece]
    while pieces:
        ends = (end for end in range(len(pieces), 0, -1) if _exists(",".join(pieces[:end])))
        end = next(ends, 1)
        parts.append(",".join(pieces[:end]))
        del pieces[:end]
    if not name or not parts:
        raise ConfigError(f"{word!r} names no run; write NAME=RUN or NAME=RUN,RUN")
    return name, parts


def _exists(text: str) -> bool:
    """Whether a path, or the path behind LABEL@, is there."""
    label, path = split_label(text)
    return "=" not in label and path.exists()


def _item(text: str) -> _Item:
    label, path = split_label(text)
    if path.is_file():
        result = read_result(path)
        kept = {result.policy.label: KeptResult(path, result)}
        return _Item(text, path, label or result.policy.label, kept, is_run=False)
    if not path.exists():
        raise ConfigError(
            f"there is no {path}; expected a run's folder, a result file, LABEL@RUN or NAME=RUN,RUN"
        )
    if holds_results(path):
        return _Item(text, path, label, _results_in(path), is_run=False)
    return _Item(text, path, label, newest_results(RunDirectory.open(path).path), is_run=True)


def holds_results(folder: Path) -> bool:
    """Whether a folder is no run and holds JSON files, as `mtrl evaluate --out` leaves it."""
    return not (folder / "config.yaml").exists() and any(folder.glob("*.json"))


def _results_in(folder: Path) -> dict[str, KeptResult]:
    """Label -> the one result of that policy among the files of a folder."""
    kept: dict[str, KeptResult] = {}
    for path in sorted(folder.glob("*.json")):
        result = read_result(path)
        label = result.policy.label
        if label in kept:
            raise ConfigError(
                f"{folder} has two results of {label}, {kept[label].path.name} and {path.name}; name a file"
            )
        kept[label] = KeptResult(path, result)
    return dict(sorted(kept.items()))


def _shared_label(items: Sequence[_Item]) -> str | None:
    """The one label that all runs without an explicit one have; None when every item has one."""
    runs = [item for item in items if not item.label]
    if not runs:
        return None
    shared = [label for label in runs[0].kept if all(label in run.kept for run in runs)]
    if len(shared) > 1:
        # what the others are held against
        shared = [label for label in shared if label not in ("random", "constant")]
    if len(shared) == 1:
        return shared[0]
    if shared:
        found = f"share the policies {', '.join(shared)}" if len(runs) > 1 else f"has {', '.join(shared)}"
        names = " and ".join(str(run.path) for run in runs[:3])
        raise ConfigError(f"{names} {found}; choose one with --policy LABEL, or write LABEL@RUN")
    listed = "; ".join(f"{run.path} has {', '.join(run.kept)}" for run in runs[:3])
    raise ConfigError(f"the runs share no policy: {listed}. Choose one of each as LABEL@RUN")


def _with_label(item: _Item, shared: str | None) -> _Item:
    label = item.label or shared
    assert label is not None, "a label was given or is shared"
    label = next((own for own, kept in item.kept.items() if kept.result.policy.shown == label), label)
    if label not in item.kept:
        raise UnknownNameError(f"policy of {item.path}", label, item.kept)
    return dataclasses.replace(item, label=label)


def _entry(name: str, word: str, items: Sequence[_Item]) -> Entry:
    kept = [item.kept[item.label or ""] for item in items]
    runs = tuple(item.path for item in items if item.is_run)
    for other in runs[1:]:
        _require_alike(name or word, runs[0], other)
    return Entry(name, word, tuple(k.result for k in kept), tuple(k.path for k in kept), runs)


def _require_alike(name: str, first: Path, other: Path) -> None:
    ours, theirs = _settings(first), _settings(other)
    for key in sorted({*ours, *theirs}):
        if ours.get(key) != theirs.get(key):
            raise ConfigError(
                f"group {name!r} holds runs that differ in more than their seed: {key} is {ours.get(key)} in "
                f"{first} and {theirs.get(key)} in {other}; compare them as two arguments"
            )


def _settings(run: Path) -> dict[str, str]:
    """Dotted key -> value of every setting that makes a policy what it is."""
    config = RunDirectory.open(run).read_config()
    settings = {key: str(value) for key, value in flat(config) if key.split(".")[0] not in FREE_KEYS}
    # a run of each seed may start from a parent of that seed
    return {key: _without_seed(text) if key in PARENT_KEYS else text for key, text in settings.items()}


def _refuse_twice(entries: Sequence[Entry]) -> None:
    seen: dict[Path, str] = {}
    for entry in entries:
        for path in entry.files:
            if path.resolve() in seen:
                raise ConfigError(
                    f"{seen[path.resolve()]} and {entry.text} are the same result, {path}; name another one"
                )
            seen[path.resolve()] = entry.text


def _named_apart(entries: Sequence[Entry], items: Sequence[Sequence[_Item]]) -> list[Entry]:
    """Gives every unnamed entry the shortest name that distinguishes all: policy, run, or both."""
    firsts = [group[0] for group in items]
    schemes = (
        [_shown(item) for item in firsts],
        [_place(item) for item in firsts],
        [f"{_shown(item)}@{_place(item)}" for item in firsts],
        [entry.text for entry in entries],
    )
    names: list[str] = []
    for scheme in schemes:
        names = [entry.name or found for entry, found in zip(entries, scheme, strict=True)]
        if len(set(names)) == len(names):
            return [dataclasses.replace(e, name=n) for e, n in zip(entries, names, strict=True)]
    raise ConfigError(f"two columns are called {names[0]!r}; give each a name of its own, as NAME=RUN")


def _shown(item: _Item) -> str:
    return item.kept[item.label].result.policy.shown


def _place(item: _Item) -> str:
    return item.path.resolve().name if item.path.is_dir() else item.path.stem


def _without_seed(name: str) -> str:
    return re.sub(r"[-_.]?(seed|s)[-_.]?\d+$", "", name) or name
