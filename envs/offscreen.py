"""Plain words for a machine on which MuJoCo cannot draw."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from mtrl.errors import UnsupportedError

ADVICE = (
    "run `apt-get install libosmesa6` and set MUJOCO_GL=osmesa before Python starts, "
    "or MUJOCO_GL=egl where there is a GPU"
)


def require_backend(what: str) -> None:
    """Raises UnsupportedError when neither a display nor MUJOCO_GL names something to draw `what` with."""
    if not os.environ.get("MUJOCO_GL") and not os.environ.get("DISPLAY"):
        raise UnsupportedError(
            f"drawing {what} needs off-screen OpenGL; there is no display and MUJOCO_GL is not set: {ADVICE}"
        )


@contextmanager
def drawing_errors(what: str) -> Iterator[None]:
    """Turns the errors of a missing OpenGL library into UnsupportedError.

    MuJoCo loads the library that MUJOCO_GL names as soon as it is imported, so a wrong value fails long
    before the first image; wrap the import of a simulator too.
    """
    try:
        yield
    except ModuleNotFoundError:
        raise
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        backend = os.environ.get("MUJOCO_GL", "")
        if not backend:
            raise
        raise UnsupportedError(
            f"{what}: MUJOCO_GL={backend} is set, but that OpenGL library does not work here "
            f"({type(error).__name__}: {error}); {ADVICE}, or unset MUJOCO_GL to go without images"
        ) from error
