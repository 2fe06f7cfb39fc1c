"""What the Atari backends share: sizes, and the ROM files of ale-py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mtrl.errors import UnsupportedError

if TYPE_CHECKING:
    from ale_py import ALEInterface

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


def load_console(rom: str) -> ALEInterface:
    """A console with the game in it, without sticky actions; takes about 0.2 s."""
    from ale_py import ALEInterface, LoggerMode

    ALEInterface.setLoggerMode(LoggerMode.Error)
    console = ALEInterface()
    console.setFloat("repeat_action_probability", 0.0)
    console.setInt("random_seed", 0)
    console.loadROM(rom_path(rom))
    return console
