"""The weight store and errors on their way, without processes."""

from mtrl.distributed.weights import WeightStore
from mtrl.errors import UnknownNameError
from mtrl.rollout import RemoteError


def test_the_store_keeps_two_publications_and_gives_only_what_is_newer() -> None:
    store = WeightStore()
    assert store.pull_if_newer(0) is None
    for publication in (1, 2, 3):
        store.publish(publication, [f"reference {publication}"], 2)  # type: ignore[list-item]
    assert sorted(store.references) == [2, 3]
    assert store.pull_if_newer(0) == (3, ["reference 3"])
    assert store.pull_if_newer(2) == (3, ["reference 3"])
    assert store.pull_if_newer(3) is None


def test_an_error_that_pickle_would_break_arrives_whole() -> None:
    """UnknownNameError is built from four arguments and carries one; pickle cannot rebuild it."""
    try:
        raise UnknownNameError("task", "trial/wakl", ["trial/walk"])
    except UnknownNameError as error:
        again = RemoteError.of(error).error()
    assert isinstance(again, UnknownNameError)
    assert str(again) == "unknown task 'trial/wakl'; did you mean 'trial/walk'?"
    assert again.nearest == ["trial/walk"]
    assert "test_weights.py" in again.__notes__[0]
