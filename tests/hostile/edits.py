"""Seeded edits of files, of their bytes or of what their formats hold; hashes can be made right again."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import yaml

from mtrl.integrity import MANIFEST, write_manifest

BLIND = ("flip", "cut", "extend", "exchange", "remove", "empty")
"""Edits of bytes, of any file."""
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2, 99, 2**31, 2**62, 0.5, -0.0, 1e-300, 1e300, "", "a", "../a", "gym/os:x", "\x00",
    "x" * 5000, [], {}, [[]], [1, 2], {"a": 1}, {"dict": 1}, {"tensor": "a"}, {"int": "0x1"},
    {"strings": [1], "dtype": "<U9", "shape": []},
)  # fmt: skip
TEXTS = ("NaN", "Infinity", "1e999", "9" * 400, "[" * 300 + "]" * 300, '{"a": 1, "a": 2}', "{", '"\\ud800"')
"""Values that JSON has, or nearly has, and Python's writer does not write."""


@dataclass(frozen=True)
class Edit:
    """What was done to a directory."""

    file: str
    how: str
    signed: bool
    """Whether the hashes are those of the edited files."""


def edit(directory: Path, draw: random.Random) -> Edit:
    """One to three edits of one file below `directory`."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    file = draw.choice([path for path in files if path.name != MANIFEST] + files[:1])
    signed = (directory / MANIFEST).exists() and draw.random() < 0.75
    inner = _INNER.get(file.suffix)
    if inner is not None and draw.random() < 0.7:
        hows = [_inside(inner, file, draw) for _ in range(draw.randint(1, 3))]
    else:
        hows = [_blind(file, files, draw)]
    if signed and file.name != MANIFEST:
        write_manifest(directory)
    return Edit(file.name, ", ".join(hows), signed)


def _inside(change: Callable[[Path, random.Random], str], file: Path, draw: random.Random) -> str:
    """An edit of what a file holds; none where an earlier one left what the format's tools cannot read."""
    try:
        return change(file, draw)
    except Exception:  # noqa: BLE001 - any tool's error
        return "nothing"


def _blind(file: Path, files: list[Path], draw: random.Random) -> str:
    how, content = draw.choice(BLIND), bytearray(file.read_bytes())
    if how == "flip" and content:
        for _ in range(draw.randint(1, 8)):
            content[draw.randrange(len(content))] = draw.randrange(256)
    elif how == "cut":
        del content[draw.randrange(len(content) + 1) :]
    elif how == "extend":
        content += draw.choice([b"\0", b" ", b"\n", bytes(draw.randrange(256) for _ in range(50))])
    elif how == "exchange":
        content = bytearray(draw.choice(files).read_bytes())
    elif how == "empty":
        content.clear()
    if how == "remove":
        file.unlink()
    else:
        file.write_bytes(bytes(content))
    return how


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container and key of a document, which may contain itself."""
    found: list[tuple[Any, Any]] = []
    level, seen = [value], set()
    while level:
        one = level.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        for key in keys:
            found.append((one, key))
            level.append(one[key])
    return found


def _change(value: Any, draw: random.Random) -> str:
    places = _places(value)
    if not places:
        return "nothing"
    holder, key = draw.choice(places)
    how = draw.choice(["replace", "replace", "delete", "add", "repeat"])
    if how == "replace":
        holder[key] = draw.choice(VALUES)
    elif how == "delete":
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(key, holder[key] if how == "repeat" else draw.choice(VALUES))
    else:
        holder[f"{key}x"] = holder[key] if how == "repeat" else draw.choice(VALUES)
    return f"{how} {str(key)[:20]}"


def _json(file: Path, draw: random.Random) -> str:
    value = json.loads(file.read_bytes())
    how = _change(value, draw)
    text = json.dumps(value)
    if draw.random() < 0.25:
        numbers = [at for at, letter in enumerate(text) if letter.isdigit()]
        if numbers:
            at = draw.choice(numbers)
            text, how = text[:at] + draw.choice(TEXTS) + text[at + 1 :], "raw text"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    return how


def _yaml(file: Path, draw: random.Random) -> str:
    mark, _, text = file.read_text(encoding="utf-8").partition("\n")
    value = yaml.safe_load(text)
    how = _change(value, draw)
    dumped = yaml.safe_dump(value)
    if draw.random() < 0.2:
        extra = draw.choice(
            ["a: &a [*a]", "b: !!python/name:os.system", "c: ${oc.env:HOME}", "d: .nan", "? [1]\n: 2"]
        )
        dumped, how = f"{dumped}\n{extra}\n", "raw text"
    file.write_text(f"{mark}\n{dumped}", encoding="utf-8")
    return how


def _lines(file: Path, draw: random.Random) -> str:
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    at = draw.randrange(len(lines))
    value = json.loads(lines[at])
    how = _change(value, draw)
    lines[at] = draw.choice(TEXTS) if draw.random() < 0.3 else json.dumps(value)
    file.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    return how


def _npz(file: Path, draw: random.Random) -> str:
    with np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    name = draw.choice(sorted(arrays))
    array = arrays[name]
    changes: dict[str, Callable[[], Any]] = {
        "drop": lambda: None,
        "cut rows": lambda: array[: len(array) // 2],
        "no rows": lambda: array[:0],
        "widen": lambda: np.stack([array, array], axis=-1),
        "retype": lambda: array.astype(draw.choice(["<f8", "<i4", "<c8", "<U4", "?"])),
        "objects": lambda: np.array([{"a": 1}] * len(array), dtype=object),
        "records": lambda: np.zeros(len(array), dtype=[("a", "<f4"), ("b", "<i8")]),
        "scalar": lambda: np.float32(1.0),
        "transpose": lambda: np.asfortranarray(array),
        "poison": lambda: np.where(
            np.arange(array.size).reshape(array.shape) == 3, draw.choice([99, -1, 7]), array
        ).astype(array.dtype),
        "nan": lambda: np.full(array.shape, np.nan, dtype=np.float32),
    }
    how = draw.choice(sorted(changes))
    made = changes[how]()
    arrays.pop(name)
    if made is not None:
        arrays[draw.choice([name, name, name, f"{name}x"])] = made
    np.savez_compressed(file, **arrays)
    return f"{how} of {name}"


def _hdf5(file: Path, draw: random.Random) -> str:
    with h5py.File(file, "a") as content:
        found: list[str] = []
        content.visit(found.append)
        name = draw.choice(found)
        return f"{_member(content, name, draw)} of {name}"


def _member(content: h5py.File, name: str, draw: random.Random) -> str:
    member = content[name]
    hows = ["delete", "soft link", "external link", "attribute", "group"]
    if isinstance(member, h5py.Dataset):
        hows += ["nan", "large", "retype", "rows", "fill", "compress", "empty"] * 2
    how = draw.choice(hows)
    if how == "attribute":
        holder = member.parent if isinstance(member, h5py.Dataset) else member
        holder.attrs["start_id"] = draw.choice([-1, 2**62, 0.5, "a", [1, 2], np.uint64(2**63)])
        return how
    array = member[()] if isinstance(member, h5py.Dataset) else np.zeros(3, dtype=np.float32)
    if how in ("nan", "large") and array.dtype.kind == "f":
        array = array.copy()
        array.flat[draw.randrange(array.size)] = np.nan if how == "nan" else 1e30
        member[...] = array
        return how
    del content[name]
    if how == "soft link":
        content[name] = h5py.SoftLink("/episode_1/rewards")
    elif how == "external link":
        content[name] = h5py.ExternalLink("/etc/passwd", "/a")
    elif how == "group":
        content.create_group(name)
    elif how == "retype":
        content[name] = array.astype(draw.choice(["<f8", "<i8", "S4", "<f2", ">f4"]))
    elif how == "rows":
        content[name] = array[: draw.randrange(len(array) + 1)]
    elif how == "fill":
        content.create_dataset(name, array.shape, array.dtype, chunks=True)
    elif how == "compress":
        content.create_dataset(name, data=array, compression="gzip")
    elif how == "empty":
        content[name] = h5py.Empty("f4")
    return how


def _onnx(file: Path, draw: random.Random) -> str:
    model = onnx.load_from_string(file.read_bytes())
    graph = model.graph
    how = draw.choice(
        ["rename", "drop node", "poison", "outside", "operators", "domain", "metadata", "shape"]
    )
    if how == "rename":
        draw.choice([*graph.input, *graph.output, *graph.initializer]).name = "renamed"
    elif how == "drop node":
        graph.node.remove(draw.choice(list(graph.node)))
    elif how == "poison":
        chosen = draw.choice(list(graph.initializer))
        array = onnx.numpy_helper.to_array(chosen).copy()
        if array.dtype.kind == "f":
            array.flat[draw.randrange(array.size)] = draw.choice([np.nan, np.inf, 1e30, 7.0])
        chosen.CopyFrom(onnx.numpy_helper.from_array(array, chosen.name))
    elif how == "outside":
        chosen = draw.choice(list(graph.initializer))
        onnx.external_data_helper.set_external_data(
            chosen, draw.choice(["weights.bin", "/etc/passwd", "../a"])
        )
    elif how == "operators":
        model.opset_import[0].version = draw.choice([0, 1, 9, 18, 99])
    elif how == "domain":
        draw.choice(list(graph.node)).domain = draw.choice(["com.microsoft", "ai.onnx.ml", "os"])
    elif how == "metadata":
        onnx.helper.set_model_props(model, {"mtrl.manifest": draw.choice(["", "{}", "[]", "x" * 1000])})
    else:
        draw.choice([*graph.input, *graph.output]).type.tensor_type.shape.dim[-1].dim_value = 7
    file.write_bytes(model.SerializeToString())
    return how


def _safetensors(file: Path, draw: random.Random) -> str:
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    how = _change(header, draw)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    announced = draw.choice([len(text), len(text), len(text), len(text) + 1, 2**62, 0])
    file.write_bytes(announced.to_bytes(8, "little") + text + content[8 + size :])
    return how


_INNER: dict[str, Callable[[Path, random.Random], str]] = {
    ".json": _json,
    ".yaml": _yaml,
    ".jsonl": _lines,
    ".npz": _npz,
    ".hdf5": _hdf5,
    ".onnx": _onnx,
    ".safetensors": _safetensors,
}
"""Suffix -> an edit of what such a file holds."""
