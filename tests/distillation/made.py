"""Tasks that no suite serves; only their sizes matter."""

from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Score, Task


def made(name: str, state: int, action: ActionSpec) -> Task:
    """A task of a state vector."""
    return Task(name, ObservationSpec(state=state), action, 10.0, 1, 10, Score("success"), "1")
