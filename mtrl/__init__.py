"""Train one policy on many tasks, distil it into a single-step controller, and run that on a robot."""

from pathlib import Path

__version__ = "0.1.0"

# A checkout keeps envs/, agents/, configs/ and launch/ beside mtrl/; an installed wheel has them inside it.
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file() and (_checkout / "agents").is_dir():
    __path__.append(str(_checkout))
