"""What both Atari backends share: sizes, and the ROM files of ale-py."""

from __future__ import annotations

from pathlib import Path

from mtrl.errors import UnsupportedError

FRAME_LIMIT = 108_000
"""Emulated frames per episode: 30 minutes of play."""
RAM_SIZE = 128
"""Bytes of an Atari 2600's memory."""
PIXEL_SIZE = 84
"""Height and width of the grey image."""


def rom_path(rom: str) -> Path:
    """The file of a game, by ale-py's name for it; raises UnsupportedError where ale-py lacks it."""
    from ale_py import roms

    path = roms.get_rom_path(rom)
    if path is None:
        raise UnsupportedError(
            f"the installed ale-py holds no ROM {rom!r}; "
            "install it again: pip install --force-reinstall ale-py"
        )
    return path
