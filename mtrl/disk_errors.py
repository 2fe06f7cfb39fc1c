"""One answer to every refusal of the operating system to write something."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from mtrl.errors import MtrlError, ResourceError

_ADVICE = {
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or choose another place",
    errno.EROFS: "the file system is mounted read-only; choose another place",
    errno.EACCES: "ask for the right to write there, or choose another place",
    errno.EIO: "the device fails; look at the system's log, and choose another place",
}


@contextlib.contextmanager
def disk_errors(target: Path, part: str = "") -> Iterator[None]:
    """Raises ResourceError, with what to do, in place of an error of the operating system in the block, which
    writes `target`, or a `part` of it such as "a line of ", whole or leaves it as it was.
    """
    try:
        yield
    except MtrlError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise ResourceError(
                f"the disk is full: {part}{target} was not written and nothing is left of it. "
                f"Free some space under {target.parent} and run again"
            ) from error
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or str(error)
        named = f" ({error.filename})" if error.filename and str(error.filename) != str(target) else ""
        advice = _ADVICE.get(error.errno or 0, "check the path, or choose another place")
        raise ResourceError(f"cannot write {part or 'to '}{target}: {reason}{named}; {advice}") from error


def is_disk_full(error: BaseException) -> bool:
    """Whether an exception means that the disk or the quota is full.

    HDF5 and safetensors raise classes of their own without an errno; the system's wording is in them.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT))
