"""Where the games are: ale-py brings their ROMs along."""

from __future__ import annotations

from pathlib import Path

from ale_py import roms

from mtrl.errors import UnsupportedError


def rom_path(rom: str) -> Path:
    """The file of a game, by ale-py's name for it; raises UnsupportedError where ale-py lacks it."""
    path = roms.get_rom_path(rom)
    if path is None:
        raise UnsupportedError(
            f"the installed ale-py holds no ROM {rom!r}; "
            "install it anew: pip install --force-reinstall ale-py"
        )
    return path
