"""Manifests of hashes."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from mtrl.errors import IntegrityError
from mtrl.integrity import MANIFEST, verify_manifest, write_manifest


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """A directory of two files with a manifest."""
    directory = tmp_path / "sealed"
    (directory / "inner").mkdir(parents=True)
    (directory / "b.txt").write_bytes(b"bee")
    (directory / "inner" / "a.txt").write_bytes(b"ay")
    write_manifest(directory)
    return directory


def test_manifest_lines_are_hashes_sorted_by_path(sealed: Path) -> None:
    expected = (
        f"{hashlib.sha256(b'bee').hexdigest()}  b.txt\n{hashlib.sha256(b'ay').hexdigest()}  inner/a.txt\n"
    )
    assert (sealed / MANIFEST).read_text() == expected
    assert verify_manifest(sealed) == hashlib.sha256(expected.encode()).hexdigest()


def test_writing_the_manifest_again_changes_nothing(sealed: Path) -> None:
    assert write_manifest(sealed) == verify_manifest(sealed) == write_manifest(sealed)


@pytest.mark.skipif(
    shutil.which("sha256sum") is None, reason="needs sha256sum; mend: apt-get install coreutils"
)
def test_sha256sum_reads_the_manifest(sealed: Path) -> None:
    command = ["sha256sum", "--check", "--strict", MANIFEST]
    assert subprocess.run(command, cwd=sealed, capture_output=True, check=False).returncode == 0
    (sealed / "b.txt").write_bytes(b"bea")
    assert subprocess.run(command, cwd=sealed, capture_output=True, check=False).returncode == 1


def test_an_edited_file_is_named(sealed: Path) -> None:
    (sealed / "b.txt").write_bytes(b"bed")
    with pytest.raises(IntegrityError, match=r"b\.txt was truncated or edited"):
        verify_manifest(sealed)


def test_a_truncated_file_is_named(sealed: Path) -> None:
    (sealed / "inner" / "a.txt").write_bytes(b"a")
    with pytest.raises(IntegrityError, match=r"a\.txt was truncated or edited .* \(1 bytes"):
        verify_manifest(sealed)


def test_a_missing_file_is_named(sealed: Path) -> None:
    (sealed / "inner" / "a.txt").unlink()
    with pytest.raises(IntegrityError, match=r"a\.txt is missing"):
        verify_manifest(sealed)


def test_a_missing_manifest_or_directory_is_named(sealed: Path) -> None:
    (sealed / MANIFEST).unlink()
    with pytest.raises(IntegrityError, match=r"manifest\.sha256 is missing"):
        verify_manifest(sealed)
    with pytest.raises(IntegrityError, match="absent is missing"):
        verify_manifest(sealed / "absent")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no hash here\n", "line 1 is not"),
        (f"{'0' * 64}  ../outside\n", "leads out of the directory"),
        (f"{'0' * 64}  /etc/hostname\n", "leads out of the directory"),
        (f"{'0' * 64}  b.t", "was truncated"),
    ],
)
def test_a_manifest_that_we_did_not_write_is_refused(sealed: Path, content: str, message: str) -> None:
    (sealed / MANIFEST).write_text(content)
    with pytest.raises(IntegrityError, match=message):
        verify_manifest(sealed)


def test_a_name_that_breaks_the_line_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "two\nlines").write_bytes(b"")
    with pytest.raises(IntegrityError, match="cannot stand in"):
        write_manifest(tmp_path)
