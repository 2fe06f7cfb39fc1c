"""Off-screen rendering with MuJoCo, tried in processes of their own, and video encoding."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from . import Finding, broken, good, warning

BACKENDS = ("osmesa", "egl")
"""Values of MUJOCO_GL that need no display, the one for any machine first."""

INSTALL = "apt-get install libosmesa6, or MUJOCO_GL=egl where there is a GPU"

PROBE_SECONDS = 60.0

_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size="1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 16, 16)
renderer.update_scene(data)
assert renderer.render().any()
renderer.close()
"""


def check_renderer(chosen: str, display: bool, errors: Mapping[str, str]) -> Finding:
    """`chosen` is MUJOCO_GL ("" unset), `errors` maps each value that was tried to "" or why it fails."""
    working = [name for name, error in errors.items() if name and not error]
    if chosen and errors.get(chosen):
        remedy = f"export MUJOCO_GL={working[0]}" if working else f"unset MUJOCO_GL; to draw: {INSTALL}"
        text = f"MUJOCO_GL={chosen} breaks the import of simulators: {errors[chosen]}"
        return broken("renderer", text, remedy)
    if chosen:
        return good("renderer", f"MUJOCO_GL={chosen} draws")
    if display and not errors.get("", "not tried"):
        return good("renderer", "draws on the display")
    if "osmesa" in working:
        return good("renderer", "OSMesa draws; `mtrl watch` selects it, other commands need MUJOCO_GL=osmesa")
    if working:
        return warning("renderer", f"only MUJOCO_GL={working[0]} draws", f"export MUJOCO_GL={working[0]}")
    return warning("renderer", "no videos and no images: no off-screen OpenGL", INSTALL)


def check_encoder(error: str) -> Finding:
    """`error` is the reason why no H.264 encoder was found, "" when one was."""
    if error:
        return warning("videos", f"no H.264 encoder: {error}", "pip install 'imageio[ffmpeg]'")
    return good("videos", "H.264 by the ffmpeg of imageio-ffmpeg")


def probe_renderers(environment: Mapping[str, str]) -> dict[str, str]:
    """Renders one image with the current setting and with each backend; MUJOCO_GL -> "" or the error.

    Each in a process of its own: a value that does not work breaks every later import.
    """
    values = list(dict.fromkeys([environment.get("MUJOCO_GL", ""), *BACKENDS]))
    if values[0] == "" and not environment.get("DISPLAY"):
        values.remove("")
    return {value: _probe(value, environment) for value in values}


def encoder_error() -> str:
    """The reason why there is no H.264 encoder, or ""."""
    try:
        import imageio.plugins.ffmpeg as plugin

        plugin.get_exe()
    except (ImportError, RuntimeError, OSError) as error:
        return str(error)
    return ""


def _probe(value: str, environment: Mapping[str, str]) -> str:
    changed = {k: v for k, v in environment.items() if k not in ("PYOPENGL_PLATFORM", "MUJOCO_GL")}
    if value:
        changed["MUJOCO_GL"] = value
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env=changed,
            cwd=tempfile.gettempdir(),
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    # Destructors print further errors after the first one.
    errors = [line for line in lines if re.match(r"[\w.]*Error\b", line)]
    return (errors or lines or [f"exit code {done.returncode}"])[0][:160]
