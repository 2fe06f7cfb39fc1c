"""Train one policy on many tasks, distil it into a single-step controller, and run that on a robot."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtrl.notebook import demonstrate, evaluate, load, make, make_tasks, register, train

__all__ = ["demonstrate", "evaluate", "load", "make", "make_tasks", "register", "train"]

__version__ = "0.1.0"

# A checkout keeps envs/, agents/, configs/ and launch/ next to mtrl/; an installed wheel has them inside it.
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file() and (_checkout / "agents").is_dir():
    __path__.append(str(_checkout))


def __getattr__(name: str) -> object:
    # Imported when first used, so that `import mtrl` stays light.
    if name in __all__:
        return getattr(import_module("mtrl.notebook"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
