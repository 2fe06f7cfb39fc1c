"""The seqlock: whole records or none, and nothing left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from mtrl.deployment.realtime.shared_memory import Seqlock, SharedBlock

ROOT = Path(__file__).parents[2]
WIDTH = 64
WRITER = """
import sys
import numpy as np
from mtrl.deployment.realtime.shared_memory import Seqlock, SharedBlock
block = SharedBlock(int(sys.argv[1]), int(sys.argv[2]))
lock = Seqlock(block)
record = np.zeros(lock.width)
for number in range(1, 1_000_000_000):
    record[:] = number
    lock.write(float(number), record)
"""


def fresh(width: int = 3) -> tuple[SharedBlock, Seqlock]:
    block = SharedBlock.create(Seqlock.words(width))
    return block, Seqlock(block)


def test_a_record_reads_back_bit_for_bit_in_another_mapping() -> None:
    block, lock = fresh()
    values = np.array([1 / 3, -0.0, np.nan])
    lock.write(12.5, values)
    out = np.zeros(3)
    assert Seqlock(SharedBlock(block.descriptor, block.words)).read(out) == 12.5
    assert out.tobytes() == values.tobytes()
    block.close()


def test_nothing_is_read_before_the_first_record() -> None:
    block, lock = fresh()
    out = np.full(3, 7.0)
    assert lock.read(out) is None
    assert lock.sequence == 0
    assert out.tolist() == [7.0, 7.0, 7.0]
    block.close()


def test_the_sequence_counts_records() -> None:
    block, lock = fresh()
    for number in range(1, 4):
        lock.write(0.0, np.zeros(3))
        assert lock.sequence == number
    block.close()


def test_a_record_whose_writer_died_half_way_is_not_read() -> None:
    block, lock = fresh()
    lock.write(1.0, np.ones(3))
    block.integers[0] += 1
    assert lock.read(np.zeros(3)) is None
    lock.write(2.0, np.ones(3))
    assert lock.read(np.zeros(3)) == 2.0
    block.close()


def test_a_record_that_changed_without_its_sequence_is_not_read() -> None:
    block, lock = fresh()
    lock.write(1.0, np.ones(3))
    block.floats[-1] = 5.0
    assert lock.read(np.zeros(3)) is None
    block.close()


def test_no_read_is_torn_while_another_process_writes_without_pause() -> None:
    block, lock = fresh(WIDTH)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(block.descriptor), str(block.words)],
        pass_fds=[block.descriptor],
        cwd=ROOT,
    )
    try:
        out = np.zeros(WIDTH)
        reads, distinct, last = 0, 0, 0.0
        while distinct < 1000:
            assert writer.poll() is None, "the writer ended"
            stamp = lock.read(out)
            if stamp is None:
                continue
            reads += 1
            assert (out == stamp).all()
            assert stamp >= last
            distinct += stamp > last
            last = stamp
        assert reads >= distinct
    finally:
        writer.kill()
        writer.wait()
        block.close()


def test_memory_is_anonymous() -> None:
    shm = Path("/dev/shm")
    before = set(shm.iterdir()) if shm.is_dir() else set()
    block, _ = fresh()
    assert (set(shm.iterdir()) if shm.is_dir() else set()) <= before
    block.close()
