"""A window that shows images at the pace of the task; needs a display and Python's tkinter."""

from __future__ import annotations

import os
import time
from typing import Any

from rich.console import Console

from .video_file import Frame

WITHOUT = "there is no window here ({reason}); the video is written all the same"


class Window:
    """One image after another, each for as long as it lasts."""

    def __init__(self, root: Any, photo: Any) -> None:  # noqa: ANN401 - tkinter may be absent
        """`root` is a tkinter.Tk, `photo` the class tkinter.PhotoImage."""
        self._root, self._photo = root, photo
        self._label: Any = None
        self._until = 0.0

    def show(self, frame: Frame, times: int, rate: float) -> None:
        """Shows an RGB image for `times` / `rate` seconds after the one before; nothing once closed."""
        if self._root is None:
            return
        import tkinter

        header = f"P6 {frame.shape[1]} {frame.shape[0]} 255 ".encode()
        try:
            image = self._photo(master=self._root, data=header + frame.tobytes(), format="PPM")
            if self._label is None:
                self._label = tkinter.Label(self._root)
                self._label.pack()
            self._label.configure(image=image)
            # tkinter keeps no reference of its own to an image that is shown
            self._label.image = image
            self._root.update()
        except tkinter.TclError:
            self._root = None
            return
        time.sleep(max(0.0, self._until - time.monotonic()))
        self._until = max(self._until, time.monotonic()) + times / rate

    def close(self) -> None:
        """Takes the window away."""
        if self._root is not None:
            self._root.destroy()
            self._root = None


def open_window(console: Console) -> Window | None:
    """A window, or None and a sentence that says why there is none."""
    if not os.environ.get("DISPLAY"):
        reason = "no display"
    else:
        try:
            import tkinter
        except ImportError:
            reason = "Python has no tkinter: apt-get install python3-tk"
        else:
            try:
                root = tkinter.Tk()
            except tkinter.TclError as error:
                reason = str(error)
            else:
                root.title("mtrl watch")
                return Window(root, tkinter.PhotoImage)
    console.print(WITHOUT.format(reason=reason), highlight=False, markup=False, soft_wrap=True)
    return None
