"""The disk that forgets: what it keeps, what it loses, and that SQLite on it behaves like SQLite."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_module.faults import disk_reason
from tests.chaos.forgetful import DiskOptions, environment, power_supply, written_back
from tests.chaos.forgetful_disk import SECTOR, Disk, File

FOLDER = "/folder"


def durable_file(disk: Disk, content: bytes = b"") -> File:
    disk.put_durable(f"{FOLDER}/file", content)
    file = disk.find(f"{FOLDER}/file")
    assert file is not None
    return file


def left(disk: Disk, seed: int | None = None) -> bytes | None:
    return disk.image(None if seed is None else random.Random(seed)).get(f"{FOLDER}/file")


def test_what_was_written_is_seen_and_gone_after_a_power_cut_until_it_is_synced() -> None:
    disk = Disk()
    file = durable_file(disk, b"old")
    disk.write(file, 0, b"new!")
    assert (bytes(file.seen), left(disk)) == (b"new!", b"old")
    disk.sync(file)
    assert left(disk) == b"new!"


def test_a_new_file_is_gone_until_its_folder_is_synced_and_a_deleted_one_comes_back() -> None:
    disk = Disk()
    file = disk.create(f"{FOLDER}/file")
    disk.write(file, 0, b"bytes")
    disk.sync(file)
    assert left(disk) is None
    disk.sync_folder(FOLDER)
    assert left(disk) == b"bytes"
    disk.delete(f"{FOLDER}/file")
    assert (disk.find(f"{FOLDER}/file"), left(disk)) == (None, b"bytes")
    disk.sync_folder(FOLDER)
    assert left(disk) is None


def test_a_cut_may_tear_a_write_between_sectors_and_nowhere_else() -> None:
    disk = Disk()
    file = durable_file(disk, b"a" * 3 * SECTOR)
    disk.write(file, 100, b"b" * 2 * SECTOR)
    found = {left(disk, seed) for seed in range(200)}
    assert len(found) == 2**3
    whole = bytes(file.seen)
    for content in found:
        assert content is not None
        for start in range(0, 3 * SECTOR, SECTOR):
            assert content[start : start + SECTOR] in (b"a" * SECTOR, whole[start : start + SECTOR])


_operations = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 3000), st.binary(min_size=1, max_size=1500)),
        st.tuples(st.just("resize"), st.integers(0, 4000), st.just(b"")),
        st.tuples(st.just("sync"), st.just(0), st.just(b"")),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(_operations, st.integers(0, 9))
def test_reads_are_those_of_a_plain_file_and_a_sync_makes_all_of_it_durable(
    operations: list[tuple[str, int, bytes]], seed: int
) -> None:
    disk = Disk(seed=seed, leak=0.5)
    file = durable_file(disk)
    plain = bytearray()
    for kind, place, data in operations:
        if kind == "write":
            plain.extend(bytes(max(0, place - len(plain))))
            plain[place : place + len(data)] = data
            disk.write(file, place, data)
        elif kind == "resize":
            plain.extend(bytes(max(0, place - len(plain))))
            del plain[place:]
            disk.resize(file, place)
        else:
            disk.sync(file)
            assert left(disk) == left(disk, seed) == bytes(plain)
        assert file.seen == plain
    disk.write_back()
    assert left(disk) == bytes(plain)


def test_a_connection_answers_as_that_of_sqlite3_does(tmp_path: Path) -> None:
    def use(path: Path) -> list[object]:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256, timeout=1.0)
        said: list[object] = [db.execute("PRAGMA journal_mode = WAL").fetchone()]
        db.executescript("CREATE TABLE t (id INTEGER PRIMARY KEY, x BLOB UNIQUE); CREATE TABLE u (x)")
        db.execute("BEGIN IMMEDIATE")
        said += [db.in_transaction, db.total_changes]
        cursor = db.execute("INSERT INTO t (x) VALUES (?)", (b"1",))
        said += [cursor.rowcount, cursor.lastrowid, cursor.fetchone()]
        said.append(db.executemany("INSERT INTO t (x) VALUES (?)", ((str(n),) for n in range(3))).rowcount)
        said.append(db.execute("UPDATE t SET x = x || 'y' WHERE id > :least", {"least": 2}).rowcount)
        returning = "INSERT INTO u VALUES (1.5), (NULL) RETURNING x"
        said.append(db.execute(returning).fetchall())
        db.execute("COMMIT")
        said += [db.in_transaction, list(db.execute("SELECT id, x FROM t ORDER BY id")), db.total_changes]
        for wrong in ("SELECT * FROM nothing", "INSERT INTO t (x) VALUES (x'31')", "SELEC"):
            with pytest.raises(sqlite3.Error) as caught:
                db.execute(wrong)
            said += [type(caught.value), caught.value.sqlite_errorcode, disk_reason(caught.value)]
        db.close()
        with pytest.raises(sqlite3.ProgrammingError):
            db.execute("SELECT 1")
        return said

    expected = use(tmp_path / "plain.db")
    with power_supply(Disk()):
        assert use(tmp_path / "forgetful.db") == expected


def test_two_connections_of_a_process_see_the_same_file(tmp_path: Path) -> None:
    with power_supply(Disk()):
        one, other = (sqlite3.connect(tmp_path / "a.db", isolation_level=None) for _ in range(2))
        one.execute("PRAGMA journal_mode = WAL").fetchall()
        one.execute("CREATE TABLE t (x)")
        one.execute("INSERT INTO t VALUES (7)")
        assert other.execute("SELECT x FROM t").fetchall() == [(7,)]
        assert other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[0] == 0
        one.execute("BEGIN IMMEDIATE")
        other.execute("PRAGMA busy_timeout = 0").fetchall()
        with pytest.raises(sqlite3.OperationalError) as caught:
            other.execute("BEGIN IMMEDIATE")
        assert disk_reason(caught.value) == "disk_error"
        one.close()
        other.close()


_COUNTER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute(f"PRAGMA synchronous = {sys.argv[2]}")
db.execute("CREATE TABLE IF NOT EXISTS t (x)")
print("found", db.execute("SELECT count(*) FROM t").fetchone()[0], flush=True)
for number in range(int(sys.argv[3])):
    db.execute("INSERT INTO t VALUES (?)", (number,))
    print(number + 1, flush=True)
while sys.stdin.read(1):
    pass
"""


def count(database: Path, synchronous: str, rows: int, options: DiskOptions, end: Callable[..., None]) -> int:
    """A process inserts rows and says so; it ends when all are said. How many it found when it began."""
    command = [sys.executable, "-c", _COUNTER, str(database), synchronous, str(rows)]
    variables = {**os.environ, **environment(options)}
    with subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(rows + 1)]
        end(process)
    assert lines[-1].split()[-1] == str(rows) or not rows
    return int(lines[0].split()[1])


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)


def leave(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()


@pytest.mark.parametrize(("synchronous", "kept"), [("FULL", 20), ("NORMAL", 0)])
def test_sigkill_is_a_power_cut(tmp_path: Path, synchronous: str, kept: int) -> None:
    """And a clean exit is none."""
    count(tmp_path / "a.db", synchronous, 0, DiskOptions(), leave)
    count(tmp_path / "a.db", synchronous, 20, DiskOptions(), kill)
    assert count(tmp_path / "a.db", synchronous, 5, DiskOptions(seed=3, leak=0.3), leave) == kept
    assert count(tmp_path / "a.db", synchronous, 0, DiskOptions(), leave) == kept + 5


def test_what_was_committed_before_the_last_write_back_is_kept(tmp_path: Path) -> None:
    database = tmp_path / "a.db"

    def wait_and_kill(process: subprocess.Popen[str]) -> None:
        said = time.monotonic()
        while (written_back(database) or 0.0) < said:
            assert time.monotonic() < said + 20
            time.sleep(0.01)
        kill(process)

    count(database, "NORMAL", 20, DiskOptions(write_back_secs=0.05), wait_and_kill)
    assert count(database, "NORMAL", 0, DiskOptions(), leave) == 20
