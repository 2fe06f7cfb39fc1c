"""The boundary of files: bounded before they are read, and one error for whatever is wrong with them."""

import os
from pathlib import Path

import pytest

from mtrl.errors import IntegrityError, SpaceError
from mtrl.integrity import read_verified, write_manifest
from mtrl.reading import DEPTH, SCALAR, parse_json, parse_yaml, read_bytes, reading


@pytest.mark.parametrize(
    "error", [KeyError("colour"), RecursionError(), MemoryError(), SpaceError("too wide"), OSError(5, "gone")]
)
def test_every_error_is_one_that_names_the_file(error: Exception) -> None:
    with pytest.raises(IntegrityError, match=r"^here/a\.json"), reading(Path("here/a.json"), "a thing"):
        raise error


def test_a_person_can_read_the_reason() -> None:
    with pytest.raises(IntegrityError) as raised, reading(Path("a"), "a thing"):
        raise ValueError("\x1b[31m" + 1000 * "x")
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 500


def test_an_interrupt_is_not_the_files_fault() -> None:
    with pytest.raises(KeyboardInterrupt), reading(Path("a"), "a thing"):
        raise KeyboardInterrupt


def test_a_larger_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    place = tmp_path / "blank"
    with place.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(IntegrityError, match="expected at most 10"):
        read_bytes(place, 10)
    place.write_bytes(b"0123456789")
    assert read_bytes(place, 10) == b"0123456789"


def test_a_pipe_that_nobody_writes_to_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(IntegrityError, match="not a regular file"):
        read_bytes(tmp_path / "pipe", 10)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "twice"),
        ("[1e999]", "not a JSON number"),
        ("[NaN]", "not a JSON number"),
        ("[-Infinity]", "not a JSON number"),
        ("[9223372036854775808]", "64 bits"),
        ("[" * (DEPTH + 2) + "]" * (DEPTH + 2), "nests deeper"),
        ("[" * 100_000, "."),
        ("[" + 2_000_000 * "0," + "0]", "more than"),
        ("[" + 5000 * "9" + "]", "."),
        ('{"a": "\ud800"}', "."),
        ("", "."),
    ],
)
def test_json_is_strict_and_bounded(text: str, reason: str) -> None:
    with pytest.raises(IntegrityError, match=reason), reading(Path("f"), "JSON"):
        parse_json(text.encode("utf-8", "surrogatepass"))


def test_json_reads_what_json_writes() -> None:
    assert parse_json(b'{"a": [1, -9223372036854775808, 0.5, null, true, "\xc3\xa4"]}') == {
        "a": [1, -(2**63), 0.5, None, True, "ä"]
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &x [1]\nb: *x", "refers to another value"),
        ("a: &x [1]\nb: [*x, *x]", "refers to another value"),
        ("a: !!binary aGFsbG8=", "type bytes"),
        ("a: 2020-01-01", "type date"),
        ("a: !!python/object/apply:os.system [ls]", "."),
        ("1: 2", "key is not text"),
        ("a: " + "[" * 1000, "nests deeper"),
        ("a: " + "1:" * SCALAR, "characters"),
        ("a: [", "."),
        ("\x00", "."),
    ],
)
def test_yaml_holds_plain_values_alone(text: str, reason: str) -> None:
    with pytest.raises(IntegrityError, match=reason), reading(Path("f"), "YAML"):
        parse_yaml(text.encode())


def test_yaml_reads_plain_values() -> None:
    assert parse_yaml(b"a: {b: [1, 0.5, true, null, text]}\nc: ''\n") == {
        "a": {"b": [1, 0.5, True, None, "text"]},
        "c": "",
    }


def test_the_bytes_that_were_hashed_are_returned(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    write_manifest(tmp_path)
    root, files = read_verified(tmp_path, {"a": 3})
    assert files == {"a": b"one"}
    assert len(root) == 64
    with pytest.raises(IntegrityError, match="expected at most 2"):
        read_verified(tmp_path, {"a": 2})
    with pytest.raises(IntegrityError, match="does not list b"):
        read_verified(tmp_path, {"a": 3, "b": 3})
    with pytest.raises(IntegrityError, match="should not list a"):
        read_verified(tmp_path, {})


def test_a_link_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "outside").write_bytes(b"one")
    (inner / "a").symlink_to(tmp_path / "outside")
    write_manifest(inner)
    with pytest.raises(IntegrityError, match="link out of"):
        read_verified(inner, {"a": 3})
