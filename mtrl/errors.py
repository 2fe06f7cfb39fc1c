"""One class per mistake that a user can make; a message has what was expected, what came, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

TRACEBACK = "Traceback (most recent call last):\n"
"""What a traceback begins with; the last one in a text is that of the exception that was not caught."""


class MtrlError(Exception):
    """Base of every error that mtrl raises on purpose; commands print it without a traceback."""

    def __reduce__(self) -> tuple[object, ...]:
        # An exception is rebuilt from `args`, the message alone, which the constructors below do not take.
        return _restore, (type(self), self.args, self.__dict__)


class MtrlWarning(RuntimeWarning):
    """What a user should know and need not change; commands print it without the code it comes from."""


class UnknownNameError(MtrlError):
    """A task, suite, agent, robot, key or choice that does not exist."""

    def __init__(
        self, kind: str, name: str, known: Iterable[str], hint: str = "", *, overview: str = ""
    ) -> None:
        """`kind` is the word for what was looked up ("task"); `known` the valid names.

        `hint` is a sentence at the end. `overview` is a place to look when no name is near and there are
        too many to print them.
        """
        self.kind = kind
        self.name = name
        known = list(dict.fromkeys(known))
        self.nearest = nearest_names(name, known)
        if self.nearest:
            advice = "did you mean " + " or ".join(repr(near) for near in self.nearest) + "?"
        else:
            shown = sorted(known)
            # "and 1 more" would be as long as the name
            first = shown if len(shown) <= 9 else shown[:8]
            tail = f" and {len(shown) - 8} more" if len(first) < len(shown) else ""
            advice = "known: " + (", ".join(first) + tail if shown else "none")
            if overview and tail:
                advice = overview
            if hint:
                advice += "."
        super().__init__(f"unknown {kind} {name!r}; {advice}" + (f" {hint}" if hint else ""))


class ConfigError(MtrlError):
    """A configuration whose parts do not fit each other, or a value of the wrong type."""


class OutOfRangeError(ConfigError):
    """A configuration value outside its range."""

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(f"{key}={value} is out of range; expected {allowed}")


class MissingExtraError(MtrlError):
    """An optional package is needed and not installed."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        """`what` needs `package`, which the optional extra `extra` installs."""
        super().__init__(
            f"{what} needs the package {package!r}, which is not installed; "
            f"install it with: pip install 'mtrl-platform[{extra}]'"
        )


class IntegrityError(MtrlError):
    """A checkpoint, dataset or artefact that is truncated, edited or not ours."""


class UntrustedCodeError(MtrlError):
    """A file names a module to import, and the user has not."""

    def __init__(self, source: object, name: str, module: str) -> None:
        """`source` is the file, `name` the task in it that would import `module`."""
        self.module = module
        super().__init__(
            f"{source} names the task {name!r}, which imports the module {module!r}: code that the file "
            "chooses. Nothing was imported"
        )


class ExistsError(MtrlError):
    """Something is already there and overwriting was not requested."""


class InUseError(MtrlError):
    """A run, folder or robot that another process owns."""


class TakenOverError(MtrlError):
    """A run or folder of this process that another one took over; nothing more is written."""


class ResourceError(MtrlError):
    """Too little disk, memory or processors, or a place that cannot be written."""


class SpaceError(MtrlError):
    """Observations or actions that do not fit the declared layout."""


class EnvironmentFault(MtrlError):
    """An environment raised or broke its contract; the task is quarantined, the run goes on."""

    def __init__(self, task: str, when: str, detail: str) -> None:
        """`when` is the phase ("step 17 of copy 2"); `detail` is a traceback or the broken rule."""
        self.task = task
        self.when = when
        self.detail = detail
        super().__init__(f"environment of task {task!r} failed at {when}:\n{detail}")

    @property
    def reason(self) -> str:
        """What went wrong in one line: the exception without its frames, or the broken rule."""
        _, traced, rest = self.detail.rpartition(TRACEBACK)
        lines = [line for line in rest.splitlines() if line.strip() and not (traced and line[0].isspace())]
        return lines[0].strip() if lines else self.detail.strip()

    @property
    def cause(self) -> str:
        """Phase and reason in one line."""
        return f"failed at {self.when}: {self.reason}"

    @property
    def summary(self) -> str:
        """Task, phase and reason in one line."""
        return f"environment of task {self.task!r} {self.cause}"


class DivergenceError(MtrlError):
    """A loss or gradient is not finite; the last checkpoint is kept."""

    def __init__(self, what: str, update: int, values: str) -> None:
        """`what` is being trained; `values` names the numbers that are not finite."""
        super().__init__(
            f"{what} diverged at update {update}: {values}. The last checkpoint is kept; "
            "lower the learning rate or look for extreme values in the data"
        )

    @staticmethod
    def on_rank(rank: int, message: str) -> DivergenceError:
        """What the other ranks raise when one of them raised an error with this message."""
        error = DivergenceError.__new__(DivergenceError)
        error.args = (f"rank {rank}: {message}",)
        return error


class RankError(MtrlError):
    """Another rank of a data-parallel run failed, ended, or did not answer in time."""


class UnsupportedError(MtrlError):
    """A combination that is understood and deliberately not offered; the message has the reason."""


class GuardError(MtrlError):
    """The deployment guard refused to start or to continue."""


def nearest_names(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """At most `count` names of `known` that a person may have meant by `name`, best first."""
    names = list(known)
    lowered = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), lowered, n=count, cutoff=0.6)
    found = [lowered[match] for match in close]
    if not found and len(name) >= 3:
        found = [candidate for candidate in sorted(names) if name.lower() in candidate.lower()][:count]
    return found


def _restore(kind: type[MtrlError], args: tuple[object, ...], attributes: dict[str, object]) -> MtrlError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error
