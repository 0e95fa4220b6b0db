"""A folder as a destination: whole or not at all, and never over something else."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.batch import content_md5
from uploader.directory_store import DirectoryStore
from uploader.store import Blob, Failed, NameTaken, Stored, attempt

NAME = "rejected/site=s/date=unknown/hour=unknown/ab-1-0123456789abcdef.jsonl.gz"


def blob(body: bytes = b"rows") -> Blob:
    return Blob(NAME, body, content_md5(body), {})


def names(root: Path) -> list[str]:
    return [path.name for path in root.rglob("*") if path.is_file()]


def test_a_batch_becomes_a_file_of_its_name_and_nothing_else(tmp_path: Path) -> None:
    assert attempt(DirectoryStore(tmp_path), blob(), probe=False) == Stored()
    assert (tmp_path / NAME).read_bytes() == b"rows"
    assert names(tmp_path) == [Path(NAME).name]


@pytest.mark.parametrize("probe", [False, True])
def test_the_same_batch_again_is_found(tmp_path: Path, probe: bool) -> None:
    store = DirectoryStore(tmp_path)
    attempt(store, blob(), probe=False)
    assert attempt(store, blob(), probe=probe) == Stored(already=True)


@pytest.mark.parametrize("other", [b"row", b"ROWS"])
def test_another_file_of_the_name_is_left_alone(tmp_path: Path, other: bytes) -> None:
    store = DirectoryStore(tmp_path)
    attempt(store, blob(other), probe=False)
    assert isinstance(attempt(store, blob(), probe=False), NameTaken)
    assert (tmp_path / NAME).read_bytes() == other


@pytest.mark.parametrize("step", ["fsync", "link", "unlink"])
def test_a_kill_at_any_step_leaves_the_file_whole_or_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if step == "unlink":
            # The first unlink clears an old part away, the second takes the finished one's second name.
            patch.setattr(Path, "unlink", die_at_second_call(Path.unlink, die))
        else:
            patch.setattr(os, step, die)
        with pytest.raises(Killed):
            attempt(DirectoryStore(tmp_path), blob(), probe=False)
    target = tmp_path / NAME
    assert not target.exists() or target.read_bytes() == b"rows"
    outcome = attempt(DirectoryStore(tmp_path), blob(), probe=False)
    assert outcome == Stored(already=step == "unlink")
    assert target.read_bytes() == b"rows"
    assert names(tmp_path) == [target.name]


def die_at_second_call(real: Callable[..., None], die: Callable[..., None]) -> Callable[..., None]:
    calls = 0

    def call(*args: object, **kwargs: object) -> None:
        nonlocal calls
        calls += 1
        (die if calls == 2 else real)(*args, **kwargs)

    return call


def test_a_file_system_without_hard_links_is_served_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    assert attempt(DirectoryStore(tmp_path), blob(), probe=False) == Stored()
    assert names(tmp_path) == [Path(NAME).name]


def test_a_full_disk_is_a_failure_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    outcome = attempt(DirectoryStore(tmp_path), blob(), probe=False)
    assert isinstance(outcome, Failed)
    assert outcome.reason == "folder_full"


def test_a_folder_that_the_disk_does_not_sync_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync
    code = errno.EIO

    def refuse_folders(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))
        sync(handle)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    for _ in range(2):
        outcome = attempt(DirectoryStore(tmp_path), blob(), probe=False)
        assert isinstance(outcome, Failed)
        assert outcome.reason == "folder_error"
    code = errno.EINVAL  # a mount that cannot do it at all
    assert attempt(DirectoryStore(tmp_path), blob(), probe=False) == Stored(already=True)
