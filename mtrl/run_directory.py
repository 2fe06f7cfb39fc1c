"""A run on disk: where everything lies, and what is refused before work starts."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from mtrl.atomic import atomic_directory, remove_directory, sweep_partials, write_text
from mtrl.errors import ConfigError, ExistsError, ResourceError
from mtrl.ownership import own
from mtrl.reading import MEGABYTE, parse_yaml, read_bytes, reading

CONFIG_BYTES = MEGABYTE
"""Largest config.yaml."""
_MARK = "# Configuration of a run of mtrl; its presence marks this directory as a run.\n"

WATCHED = "watched"
"""Folder, of a run or among the runs, of the videos that `mtrl watch` makes where no place is named."""

LOCK = ".owner"
"""Ending of the name of a run's lock, which lies beside it, and name of a folder's, which lies in it."""

_ABSENT = object()
"""Stands for the value of a key that one of two configurations lacks."""


@dataclass(frozen=True)
class RunPolicy:
    """A policy that a run can make."""

    label: str
    """Its name in files, tables and commands."""
    folder: str
    """Where its metrics and checkpoints are below the run; empty for the run's own folder."""
    headline: int
    """Its place in the report, which leads with the smallest."""


POLICIES = (RunPolicy("teacher", "", 0), RunPolicy("bc", "bc", 2), RunPolicy("student", "student", 1))
"""Every policy of a run, in the order of tables."""


@dataclass(frozen=True)
class RunDirectory:
    """The places of one run below `path`. Made by `create`, or `open` to read a finished run."""

    path: Path
    resumed: bool = False
    """Whether the directory was there before and the run goes on in it."""

    @classmethod
    def create(
        cls, path: Path, overwrite: bool = False, resume: bool = False, config: object = None
    ) -> RunDirectory:
        """A new run at `path`, or the one that is there; `own_run` around it keeps other processes out.

        Args:
            path: the run's own directory; absent, or empty, unless one of the flags is given.
            overwrite: remove a run that is there. Only a directory that is recognisably a run is
                removed, never anything else.
            resume: go on in a run that is there; start a new one if there is none.
            config: dataclass or mapping to write as `config.yaml` of a new run.

        Raises ExistsError when something is there and no flag allows for it, when it is no run, or when the
        place lies in another run, which may be removed with all that is in it;
        ConfigError when both flags are given; InUseError for a run that another process owns.
        """
        if overwrite and resume:
            raise ConfigError("--overwrite and --resume auto contradict each other; give one of them")
        with own_run(path):
            return cls._created(path, overwrite, resume, config)

    @classmethod
    def _created(cls, path: Path, overwrite: bool, resume: bool, config: object) -> RunDirectory:
        outer = next(filter(_is_run, path.resolve().parents), None)
        if outer is not None:
            raise ExistsError(f"{path} lies in the run {outer}; choose a place beside it")
        occupied = path.is_symlink() or path.is_file() or (path.is_dir() and any(path.iterdir()))
        if occupied and not _is_run(path):
            raise ExistsError(
                f"{path} exists and is not a run of mtrl (it has no config.yaml that mtrl wrote); "
                "it is left as it is. Choose another place for the run"
            )
        if occupied and resume:
            return cls(path, resumed=True)
        if occupied and not overwrite:
            raise ExistsError(
                f"{path} already holds a run; pass --resume auto to go on with it, "
                "--overwrite to remove it and start again, or choose another name"
            )
        content = _dump_config(config if config is not None else {})
        if occupied:
            remove_directory(path)
        elif path.is_dir():
            path.rmdir()
        with atomic_directory(path) as partial:
            new = cls(partial)
            new.config_file.write_text(content, encoding="utf-8")
            for directory in (new.events, new.checkpoints, new.evaluations, new.videos):
                directory.mkdir()
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """A run that exists, also by a link to it; raises ConfigError when `path` is none."""
        if not _is_run(path.resolve()):
            raise ConfigError(
                f"{path} is not a run of mtrl: expected a directory with a config.yaml that mtrl wrote"
            )
        return cls(path, resumed=True)

    @property
    def config_file(self) -> Path:
        """The configuration that was run."""
        return self.path / "config.yaml"

    @property
    def events(self) -> Path:
        """Event files of TensorBoard."""
        return self.path / "events"

    @property
    def checkpoints(self) -> Path:
        """`<step>/` per checkpoint."""
        return self.path / "checkpoints"

    @property
    def evaluations(self) -> Path:
        """`<step>.json` per evaluation."""
        return self.path / "evaluations"

    @property
    def policies(self) -> Path:
        """`<label>/` per finished policy."""
        return self.path / "policies"

    def training(self, label: str) -> Path:
        """Where the policy of that label has its metrics and checkpoints."""
        (folder,) = (policy.folder for policy in POLICIES if policy.label == label)
        return self.path / folder

    @property
    def videos(self) -> Path:
        """Recorded episodes."""
        return self.path / "videos"

    @property
    def artefact(self) -> Path:
        """The exported controller; absent until it is exported."""
        return self.path / "artefact"

    def write_config(self, config: object) -> None:
        """Replaces `config.yaml`; raises ConfigError naming a value that YAML has no form for."""
        content = _dump_config(config)
        write_text(self.config_file, content, overwrite=True)

    def read_config(self) -> dict[str, Any]:
        """The configuration as nested plain values; raises IntegrityError when it is no such thing."""
        return read_config(self.config_file)

    def resume_config(
        self,
        given: dict[str, Any],
        changeable: Iterable[tuple[str, str]],
        free: Set[str],
        canonical: Callable[[dict[str, Any]], dict[str, Any]] = lambda values: values,
    ) -> None:
        """Requires that the run continues with its own settings, and keeps those that may change:
        `changeable`, (section, key) each. Whole sections in `free` may differ. `canonical` brings settings
        into the form in which they are compared. Raises ConfigError naming the first setting that differs.
        """
        saved = self.read_config()
        before = json.dumps(saved)
        with reading(self.config_file, "the configuration of a run"):
            for section, key in changeable:
                if section in saved and key in given.get(section, {}):
                    saved[section][key] = given[section][key]
        was, now = canonical(saved), canonical(given)
        for key in sorted({*was, *now} - free):
            if was.get(key, _ABSENT) != now.get(key, _ABSENT):
                _refuse(*_first_difference(key, was.get(key, _ABSENT), now.get(key, _ABSENT)))
        if json.dumps(saved) != before:
            self.write_config(saved)


def split_label(text: str) -> tuple[str, Path]:
    """LABEL@PATH as label and path; a path that exists, or has its first @ in a folder's name, has no label.

    Raises ConfigError for an empty label.
    """
    label, at, rest = text.partition("@")
    if not at or "/" in label or Path(text).exists():
        return "", Path(text)
    if not label:
        raise ConfigError(f"{text} names no policy before the @; write LABEL@RUN, or the run alone")
    return label, Path(rest)


def agent_settings(run: Path) -> object:
    """Name and settings of the agent of the run in this folder; None where there is no configuration."""
    file = RunDirectory(run).config_file
    return read_config(file).get("agent") if file.is_file() else None


def read_config(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file of a run; raises IntegrityError for anything else, aliases and
    interpolations included.
    """
    with reading(path, "a mapping of keys to values in YAML"):
        read = parse_yaml(read_bytes(path, CONFIG_BYTES))
        if not isinstance(read, dict):
            raise ValueError(f"it holds a {type(read).__name__}")
    return read


@contextlib.contextmanager
def own_run(path: Path) -> Iterator[None]:
    """Makes this process the only writer of the run at `path`, which need not exist yet, for the length of
    the block, and removes what killed writers left. Raises InUseError naming the owner.
    """
    place = path.resolve()
    with own(place.parent / f".{place.name}{LOCK}", path) as new:
        if new:
            sweep_partials(place.parent, place.name)
            if _is_run(place):
                sweep_partials(place, depth=4, skip=(WATCHED,))
        yield


@contextlib.contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """The same for a folder of results; for one in a run the whole run is locked."""
    place, run = folder.resolve(), run_around(folder)
    if run is not None:
        with own_run(run):
            yield
        return
    with own(place / LOCK, folder) as new:
        if new:
            sweep_partials(place, depth=2)
        yield


def run_around(folder: Path) -> Path | None:
    """The run that `folder` is, or lies in; None for a folder elsewhere."""
    place = folder.resolve()
    return next((near for near in (place, *place.parents) if _is_run(near)), None)


def require_disk(path: Path, needed_bytes: int) -> None:
    """Raises ResourceError when the file system of `path` has fewer than `needed_bytes` free.

    `path` need not exist yet: its nearest existing parent decides.
    """
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise ResourceError(
            f"{path} needs about {_spell_bytes(needed_bytes)} of disk "
            f"and {existing} has {_spell_bytes(free)} free; "
            "free some space, choose another place, or keep fewer checkpoints"
        )


def _is_run(path: Path) -> bool:
    config = path / "config.yaml"
    if path.is_symlink() or not config.is_file():
        return False
    with config.open("rb") as file:
        return file.read(len(_MARK.encode())) == _MARK.encode()


def _dump_config(config: object) -> str:
    return _MARK + yaml.safe_dump(_plain(config, "config"), sort_keys=False, allow_unicode=True)


def _plain(value: object, place: str) -> object:
    """Nested dicts, lists and scalars of a configuration."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        members = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _plain(members, place)
    if isinstance(value, Mapping):
        return {key: _plain(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, enum.Enum):
        return _plain(value.value, place)
    if isinstance(value, Path):
        return str(value)
    if value is None or type(value) in (str, int, float, bool):
        return value
    raise ConfigError(
        f"{place} is a {type(value).__qualname__}, which config.yaml has no form for; "
        "expected a dataclass, mapping, list, enum, path, string, number, boolean or None"
    )


def _spell_bytes(count: int) -> str:
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def _refuse(place: str, was: object, now: object) -> NoReturn:
    started = f"without {place}" if was is _ABSENT else f"with {place}={was!r}"
    found = "there is none" if now is _ABSENT else f"it is {now!r}"
    advice = "resume it with the same settings, or give the new run another name"
    if _ABSENT in (was, now):
        advice = (
            "resume it with the same settings and the version of mtrl that began it, or give the new "
            "run another name. What it has finished can be evaluated, exported and reported as it is"
        )
    raise ConfigError(f"the run was started {started}, now {found}; {advice}")


def _first_difference(place: str, was: Any, now: Any) -> tuple[str, Any, Any]:  # noqa: ANN401
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted({*was, *now}):
            if was.get(key, _ABSENT) != now.get(key, _ABSENT):
                return _first_difference(f"{place}.{key}", was.get(key, _ABSENT), now.get(key, _ABSENT))
    return place, was, now
