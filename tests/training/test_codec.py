"""The codec: what goes in comes out, bit for bit, and nothing is unpickled."""

import collections
import enum
import os
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from mtrl.errors import ExistsError, IntegrityError, ResourceError, UnsupportedError
from mtrl.training import codec
from mtrl.training.codec import load_state, save_state


def assert_same(left: Any, right: Any) -> None:
    """Equal in type and in every bit, also where numbers are NaN."""
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert list(left) == list(right)
        assert [type(key) for key in left] == [type(key) for key in right]
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        assert (
            left.contiguous().view(-1).view(torch.uint8).equal(right.contiguous().view(-1).view(torch.uint8))
        )
    elif isinstance(left, np.ndarray | np.generic):
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        assert left.tobytes() == right.tobytes()
    elif isinstance(left, float):
        assert np.float64(left).tobytes() == np.float64(right).tobytes()
    else:
        assert left == right


def roundtrip(tmp_path: Path, state: object) -> Any:
    save_state(tmp_path / "state", state, overwrite=True)
    return load_state(tmp_path / "state")


TORCH_DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
]
NUMPY_DTYPES = st.one_of(
    arrays.boolean_dtypes(),
    arrays.integer_dtypes(endianness="?"),
    arrays.unsigned_integer_dtypes(endianness="?"),
    arrays.floating_dtypes(sizes=(16, 32, 64), endianness="?"),
    arrays.complex_number_dtypes(sizes=(64, 128), endianness="?"),
    arrays.unicode_string_dtypes(max_len=4),
)
NUMPY_ARRAYS = arrays.arrays(
    NUMPY_DTYPES, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
)
# A NaN's sign and payload have no text; every other number must come back exactly.
NUMPY_SCALARS = (
    NUMPY_ARRAYS.filter(lambda array: array.size > 0)
    .map(lambda array: array.ravel()[0])
    .map(lambda scalar: scalar if scalar == scalar else scalar.dtype.type("nan"))
)
TENSORS = st.builds(
    lambda shape, dtype, seed: torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(seed)).to(
        dtype
    ),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.sampled_from(TORCH_DTYPES),
    st.integers(0, 2**31),
)
FLOATS = st.floats().map(lambda number: number if number == number else float("nan"))
KEYS = st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.tuples(st.text(), st.integers()))
STATES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), FLOATS, st.text(), NUMPY_ARRAYS, NUMPY_SCALARS, TENSORS
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(), inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3),
    ),
    max_leaves=8,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(state=STATES)
def test_every_state_comes_back(tmp_path: Path, state: object) -> None:
    assert_same(state, roundtrip(tmp_path, state))


def test_two_saves_of_one_state_are_equal_files(tmp_path: Path) -> None:
    state = {"weights": torch.arange(6.0).reshape(2, 3), "step": 7, 3: (np.float32(0.1),)}
    assert save_state(tmp_path / "one", state) == save_state(tmp_path / "two", state)


def test_views_are_stored_dense_and_come_back_equal(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = {"t": base.t(), "strided": base[:, ::2], "top": base[:2], "below": base[1:], "whole": base}
    loaded = roundtrip(tmp_path, state)
    assert_same(state, loaded)
    array = np.arange(12.0).reshape(3, 4)
    reversed_and_fortran = {"back": array[::-1], "fortran": np.asfortranarray(array), "column": array[:, 1]}
    assert_same(reversed_and_fortran, roundtrip(tmp_path, reversed_and_fortran))


def test_aliases_stay_aliases(tmp_path: Path) -> None:
    tensor, array, empty = torch.ones(3), np.ones(3), torch.empty(0)
    state = {
        "a": [tensor, array, empty],
        "b": (tensor, array, empty),
        "equal": torch.ones(3),
        "other empty": torch.empty(0),
    }
    loaded = roundtrip(tmp_path, state)
    assert all(one is other for one, other in zip(loaded["a"], loaded["b"], strict=True))
    assert loaded["equal"] is not loaded["a"][0]
    assert loaded["other empty"] is not loaded["a"][2]
    loaded["a"][0][0] = 5
    loaded["a"][1][0] = 5
    assert loaded["b"][0][0] == loaded["b"][1][0] == 5
    assert loaded["equal"].tolist() == [1, 1, 1]


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    first, second = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    second.weight = first.weight
    loaded = roundtrip(tmp_path, torch.nn.ModuleList([first, second]).state_dict())
    assert loaded["0.weight"] is loaded["1.weight"]
    assert loaded["0.bias"] is not loaded["1.bias"]


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.MT19937])
def test_a_numpy_generator_continues_its_stream(tmp_path: Path, kind: type[np.random.BitGenerator]) -> None:
    generator = np.random.Generator(kind(3))
    generator.random(5)
    generator.integers(0, 10, dtype=np.int32)
    loaded = roundtrip(tmp_path, generator.bit_generator.state)
    resumed = np.random.Generator(kind(0))
    resumed.bit_generator.state = loaded
    assert generator.random(20).tolist() == resumed.random(20).tolist()


def test_a_torch_generator_continues_its_stream(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    torch.randn(7, generator=generator)
    loaded = roundtrip(tmp_path, {"rng": generator.get_state()})
    resumed = torch.Generator()
    resumed.set_state(loaded["rng"])
    assert torch.randn(20, generator=generator).equal(torch.randn(20, generator=resumed))


def test_an_optimiser_continues_as_if_never_stopped(tmp_path: Path) -> None:
    def step(module: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad()
        module(torch.ones(2, 3)).square().sum().backward()
        optimiser.step()

    module = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.1)
    step(module, optimiser)
    loaded = roundtrip(tmp_path, {"module": module.state_dict(), "optimiser": optimiser.state_dict()})
    resumed = torch.nn.Linear(3, 2)
    resumed_optimiser = torch.optim.AdamW(resumed.parameters(), lr=0.5)
    resumed.load_state_dict(loaded["module"])
    resumed_optimiser.load_state_dict(loaded["optimiser"])
    step(module, optimiser)
    step(resumed, resumed_optimiser)
    assert resumed.weight.equal(module.weight)


def test_loaded_state_is_independent_of_the_files(tmp_path: Path) -> None:
    save_state(tmp_path / "state", {"t": torch.ones(4), "a": np.ones(4)})
    loaded = load_state(tmp_path / "state")
    file = tmp_path / "state" / "state.safetensors"
    file.write_bytes(bytes(file.stat().st_size))
    loaded["a"] += 1
    assert loaded["t"].tolist() == [1, 1, 1, 1]
    assert loaded["a"].tolist() == [2, 2, 2, 2]


def test_gradients_and_ordered_dicts_come_back_plain(tmp_path: Path) -> None:
    loaded = roundtrip(tmp_path, collections.OrderedDict(p=torch.nn.Parameter(torch.ones(2))))
    assert type(loaded) is dict
    assert type(loaded["p"]) is torch.Tensor
    assert not loaded["p"].requires_grad


class Colour(enum.IntEnum):
    RED = 1


CYCLE: list[object] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1, 2}, "set"),
        (b"bytes", "bytes"),
        (Colour.RED, "Colour"),
        (collections.defaultdict(list), "defaultdict"),
        (torch.Size([1]), "Size"),
        (np.array([object()]), "object"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "datetime64"),
        (torch.eye(2).to_sparse(), "sparse"),
        (torch.empty(2, device="meta"), "meta"),
        ({b"key": 1}, "key of type bytes"),
        (CYCLE, "contains itself"),
    ],
)
def test_what_cannot_be_saved_is_refused_with_its_place(tmp_path: Path, value: object, message: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"state\['agent'\]\['0'\].*{message}"):
        save_state(tmp_path / "state", {"agent": [value]})
    assert os.listdir(tmp_path) == []


def test_existing_state_needs_overwrite(tmp_path: Path) -> None:
    save_state(tmp_path / "state", 1)
    with pytest.raises(ExistsError, match="state already exists"):
        save_state(tmp_path / "state", 2)
    assert load_state(tmp_path / "state") == 1
    save_state(tmp_path / "state", 2, overwrite=True)
    assert load_state(tmp_path / "state") == 2


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.sha256"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "edited"])
def test_damage_is_found_and_named(tmp_path: Path, name: str, damage: str) -> None:
    save_state(tmp_path / "state", {"weights": torch.ones(8)})
    file = tmp_path / "state" / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(content[:-3])
    else:
        file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    # An edited manifest accuses the file whose hash it no longer holds; that is as near as one can come.
    named = "state" if name == "manifest.sha256" and damage == "edited" else name
    with pytest.raises(IntegrityError, match=named):
        load_state(tmp_path / "state")


def test_an_unknown_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "VERSION", 99)
    save_state(tmp_path / "state", 1)
    monkeypatch.undo()
    with pytest.raises(IntegrityError, match=r"version 99.*reads 'mtrl-state' version 1"):
        load_state(tmp_path / "state")


def test_both_files_are_readable_alike(tmp_path: Path) -> None:
    save_state(tmp_path / "state", {"t": torch.ones(1)})
    modes = {path.stat().st_mode for path in (tmp_path / "state").iterdir()}
    assert len(modes) == 1


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: dict[str, torch.Tensor], path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, os.strerror(28), str(path))

    save_state(tmp_path / "state", "before")
    monkeypatch.setattr(codec, "save_file", full)
    with pytest.raises(ResourceError, match="the disk is full"):
        save_state(tmp_path / "state", "after", overwrite=True)
    assert os.listdir(tmp_path) == ["state"]
    assert load_state(tmp_path / "state") == "before"
