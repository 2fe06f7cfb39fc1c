"""Any nested state on disk: tensors in safetensors, everything else in a JSON tree, no pickle.

A directory holds `state.safetensors` (contiguous tensors that share no memory: the format refuses any
other), `state.json` (the tree) and `manifest.sha256`. In the tree a list is a JSON array and the plain
values are themselves; all else is an object with one telling key:

| JSON | stands for |
|---|---|
| `{"dict": {...}}` | a dict whose keys are strings |
| `{"items": [[key, value], ...]}` | a dict with keys of other kinds |
| `{"tuple": [...]}` | a tuple |
| `{"float": "nan"}`, `"inf"`, `"-inf"` | a float that JSON has no number for |
| `{"int": "0x..."}` | an integer of more than 53 bits, such as the state of PCG64 |
| `{"tensor": name}` | a torch tensor; the same name twice is the same tensor |
| `{"array": name, "dtype": ...}` | a NumPy array; the same name twice is the same array |
| `{"scalar": value, "dtype": ...}` | a NumPy scalar |
| `{"strings": [...], "dtype": ..., "shape": [...]}` | a NumPy array of strings |
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from mtrl.atomic import atomic_directory
from mtrl.errors import IntegrityError, UnsupportedError
from mtrl.integrity import verify_manifest, write_manifest
from mtrl.reading import DEPTH, JSON_BYTES, MEGABYTE, parse_json, read_bytes, reading

VERSION = 1
"""Version of the format; another one is refused."""

HEADER_BYTES = 8 * MEGABYTE
"""Largest list of the tensors of a state."""
TEXT_BYTES = 16 * MEGABYTE
"""Largest array of strings in a state; NumPy gives every string the room of the longest."""

_TENSORS = "state.safetensors"
_TREE = "state.json"
_EXACT_INTEGER = 2**53
_NUMBER = re.compile("[<>|=][biufc][0-9]{1,2}")
_STRING = re.compile("[<>]U([0-9]{1,9})")


def save_state(directory: Path, state: object, *, overwrite: bool = False) -> str:
    """Writes `state` to `directory` whole or not at all; returns the root hash.

    Dicts (also OrderedDict, which comes back as dict), lists, tuples, strings, numbers, booleans, None,
    NumPy arrays and scalars, torch tensors on any device. The same tensor or array in two places comes
    back as one object, and so do two that are views of exactly the same memory (tied weights); other
    overlapping views come back as separate copies. Tensors come back detached, contiguous and on the CPU.

    Raises UnsupportedError, naming the place, for anything else; ExistsError when `directory` exists
    and `overwrite` is False; ResourceError when the disk is full, after which nothing is left behind.
    """
    encoder = _Encoder()
    document = {"format": "mtrl-state", "version": VERSION, "tree": encoder.encode(state, ("state",))}
    text = json.dumps(document, allow_nan=False)
    if len(text) > JSON_BYTES:
        raise UnsupportedError(
            f"the state holds {len(text):,} bytes besides its tensors; at most {JSON_BYTES:,} can be saved. "
            "Keep long lists of numbers as arrays"
        )
    with atomic_directory(directory, overwrite) as partial:
        save_file(encoder.tensors, partial / _TENSORS)
        (partial / _TREE).write_text(text, encoding="utf-8")
        # safetensors makes its file readable by the owner only; a reader of the tree may read both.
        shutil.copymode(partial / _TREE, partial / _TENSORS)
        return write_manifest(partial)


def load_state(directory: Path) -> Any:  # noqa: ANN401 - a state is whatever was saved
    """Reads what `save_state` wrote, after checking every hash. Never unpickles.

    Raises IntegrityError naming the file that is missing, truncated, edited or malformed.
    """
    tree, stored = directory / _TREE, directory / _TENSORS
    verify_manifest(directory)
    if not tree.is_file() or not stored.is_file():
        raise IntegrityError(f"{directory} holds no saved state; expected {_TREE} and {_TENSORS} in it")
    with reading(tree, "the tree of a saved state"):
        document = parse_json(read_bytes(tree, JSON_BYTES), depth=2 * DEPTH)
        if not isinstance(document, dict) or "tree" not in document:
            raise ValueError("it holds no tree")
        if document.get("format") != "mtrl-state" or document.get("version") != VERSION:
            raise IntegrityError(
                f"{tree} is of format {document.get('format')!r} version {document.get('version')!r}; "
                f"this release reads 'mtrl-state' version {VERSION}"
            )
    with reading(stored, "the tensors of a saved state"):
        _require_header(stored)
        # The default backend maps the file into memory, where a later change to it would change the state.
        tensors = load_file(stored, backend="pread")
    with reading(tree, "the tree of a saved state"):
        return _Decoder(tensors).decode(document["tree"])


def _require_header(stored: Path) -> None:
    with stored.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > HEADER_BYTES:
        raise ValueError(f"its header has {size:,} bytes; expected at most {HEADER_BYTES:,}")


class _Encoder:
    """Walks a state once; collects tensors under the names of their places."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._names: dict[tuple[object, ...], str] = {}
        self._storages: set[int] = set()
        self._open: set[int] = set()

    def encode(self, value: object, place: tuple[str, ...]) -> object:
        """The JSON form of `value`, which stands at `place` in the state."""
        if isinstance(value, np.generic):
            return _encode_scalar(value, place)
        kind = type(value)
        if value is None or kind in (bool, str):
            return value
        if isinstance(value, int) and kind is int:
            return value if abs(value) <= _EXACT_INTEGER else {"int": hex(value)}
        if isinstance(value, float) and kind is float:
            return value if math.isfinite(value) else {"float": str(value)}
        if isinstance(value, torch.Tensor):
            return {"tensor": self._tensor(value, place)}
        if isinstance(value, np.ndarray) and kind is np.ndarray:
            return self._array(value, place)
        if kind in (list, tuple, dict, OrderedDict):
            return self._container(value, place)
        raise UnsupportedError(
            f"{_spell(place)} is a {kind.__module__}.{kind.__qualname__}, which cannot be saved; "
            "expected dict, list, tuple, str, int, float, bool, None, a NumPy array or a torch tensor"
        )

    def _container(self, value: object, place: tuple[str, ...]) -> object:
        if id(value) in self._open:
            raise UnsupportedError(f"{_spell(place)} contains itself, which cannot be saved")
        self._open.add(id(value))
        try:
            if isinstance(value, dict):
                return self._dict(value, place)
            assert isinstance(value, list | tuple)
            items = [self.encode(item, (*place, str(index))) for index, item in enumerate(value)]
            return {"tuple": items} if isinstance(value, tuple) else items
        finally:
            self._open.remove(id(value))

    def _dict(self, value: dict[object, object], place: tuple[str, ...]) -> object:
        if all(type(key) is str for key in value):
            return {"dict": {key: self.encode(item, (*place, str(key))) for key, item in value.items()}}
        return {
            "items": [
                [_encode_key(key, place), self.encode(item, (*place, str(key)))]
                for key, item in value.items()
            ]
        }

    def _tensor(self, value: torch.Tensor, place: tuple[str, ...]) -> str:
        if value.layout is not torch.strided or value.device.type == "meta" or value.is_quantized:
            raise UnsupportedError(
                f"{_spell(place)} is a {value.layout} tensor on {value.device}; "
                "only dense tensors can be saved"
            )
        if value.dtype is torch.complex128:
            raise UnsupportedError(f"{_spell(place)} is complex128; save its real and imaginary parts")
        memory: tuple[object, ...] = (id(value),)
        if value.numel():
            memory = ("torch", value.device, value.data_ptr(), value.shape, value.stride(), value.dtype)
            memory = (*memory, value.is_conj(), value.is_neg())
        if memory not in self._names:
            dense = value.detach().resolve_conj().resolve_neg().cpu().contiguous()
            self._add(memory, place, dense)
        return self._names[memory]

    def _array(self, value: np.ndarray[Any, Any], place: tuple[str, ...]) -> object:
        kind = value.dtype.kind
        if kind == "U":
            if value.nbytes > TEXT_BYTES:
                raise UnsupportedError(f"{_spell(place)} holds {value.nbytes:,} bytes of strings, too many")
            return {"strings": value.ravel().tolist(), "dtype": value.dtype.str, "shape": list(value.shape)}
        if kind not in "biufc" or value.dtype.itemsize > (16 if kind == "c" else 8):
            raise UnsupportedError(
                f"{_spell(place)} is a NumPy array of {value.dtype}, which cannot be saved; "
                "expected booleans, integers, floats up to 64 bits, complex numbers or strings"
            )
        memory: tuple[object, ...] = (id(value),)
        if value.size:
            memory = ("numpy", value.ctypes.data, value.shape, value.strides, value.dtype.str)
        if memory not in self._names:
            native = np.require(value, value.dtype.newbyteorder("="), ["C", "W"])
            if kind == "c":
                native = np.stack([native.real, native.imag], axis=-1)
            self._add(memory, place, torch.from_numpy(native))
        return {"array": self._names[memory], "dtype": value.dtype.str}

    def _add(self, memory: tuple[object, ...], place: tuple[str, ...], dense: torch.Tensor) -> None:
        stem = "/".join(place).encode("ascii", "backslashreplace").decode()
        name, number = stem, 2
        while name in self.tensors:
            name, number = f"{stem}#{number}", number + 1
        storage = dense.untyped_storage()
        # A view may be dense already and still share its storage with another one.
        owned = storage.nbytes() == dense.nbytes and storage.data_ptr() not in self._storages
        self._storages.add(storage.data_ptr())
        self.tensors[name] = dense if owned else dense.clone()
        self._names[memory] = name


class _Decoder:
    """Rebuilds a state from its tree; every tensor becomes one object however often it is named."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self._tensors = tensors
        self._arrays: dict[str, np.ndarray[Any, Any]] = {}

    def decode(self, node: object) -> Any:  # noqa: ANN401 - a state is whatever was saved
        """The value that `node` stands for."""
        if isinstance(node, list):
            return [self.decode(item) for item in node]
        if not isinstance(node, dict):
            return node
        match node:
            case {"dict": members}:
                return {key: self.decode(item) for key, item in members.items()}
            case {"items": pairs}:
                return {self.decode(key): self.decode(item) for key, item in pairs}
            case {"tuple": items}:
                return tuple(self.decode(item) for item in items)
            case {"float": text}:
                return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[text]
            case {"int": text}:
                return int(text, 16)
            case {"tensor": name}:
                return self._tensors[name]
            case {"array": name, "dtype": dtype}:
                return self._array(name, _number_type(dtype))
            case {"scalar": inner, "dtype": dtype}:
                return _decode_scalar(self.decode(inner), dtype)
            case {"strings": texts, "dtype": dtype, "shape": shape}:
                return _decode_strings(texts, dtype, shape)
        raise ValueError(f"{_TREE} holds an object that this release does not know: {sorted(node)}")

    def _array(self, name: str, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        if name not in self._arrays:
            native = self._tensors[name].numpy()
            if dtype.kind == "c":
                native = native.view(dtype.newbyteorder("=")).reshape(native.shape[:-1])
            if native.dtype != dtype.newbyteorder("="):
                raise ValueError(f"the array {name!r} is of {dtype}, its tensor of {native.dtype}")
            self._arrays[name] = native.astype(dtype, copy=False)
        return self._arrays[name]


def _encode_key(key: object, place: tuple[str, ...]) -> object:
    """Keys are scalars or tuples of scalars; nothing that a tensor could hide in."""
    if isinstance(key, tuple) and type(key) is tuple:
        return {"tuple": [_encode_key(part, place) for part in key]}
    if key is None or type(key) in (str, int, float, bool):
        return _Encoder().encode(key, place)
    raise UnsupportedError(
        f"{_spell(place)} has a key of type {type(key).__qualname__}; "
        "expected str, int, float, bool, None or a tuple"
    )


def _encode_scalar(value: np.generic, place: tuple[str, ...]) -> object:
    plain = value.item()
    if isinstance(plain, complex):
        plain = (plain.real, plain.imag)
    if value.dtype.kind not in "biufcU" or isinstance(plain, np.generic):
        raise UnsupportedError(f"{_spell(place)} is a NumPy scalar of {value.dtype}, which cannot be saved")
    return {"scalar": _Encoder().encode(plain, place), "dtype": value.dtype.str}


def _number_type(text: object) -> np.dtype[Any]:
    """The type of numbers that `text` names; NumPy's own parser also takes types of any size."""
    if not isinstance(text, str) or not _NUMBER.fullmatch(text):
        raise ValueError(f"{str(text)[:40]!r} is not a type of numbers")
    return np.dtype(text)


def _decode_scalar(plain: Any, name: object) -> np.generic:  # noqa: ANN401 - any plain value
    if isinstance(plain, str):
        return np.str_(plain)
    dtype = _number_type(name)
    result: np.generic = dtype.type(complex(*plain) if dtype.kind == "c" else plain)
    return result


def _decode_strings(texts: object, dtype: object, shape: object) -> np.ndarray[Any, Any]:
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("an array of strings holds something else")
    match = _STRING.fullmatch(str(dtype))
    if match is None or 4 * int(match[1]) * len(texts) > TEXT_BYTES:
        raise ValueError(f"{len(texts)} strings of type {str(dtype)[:40]!r} are too large, or none")
    found = np.array(texts, dtype=match[0])
    if found.tolist() != texts:
        raise ValueError(f"strings are longer than their type {match[0]!r}")
    return found.reshape(shape)


def _spell(place: Sequence[str]) -> str:
    return place[0] + "".join(f"[{part!r}]" for part in place[1:])
