"""The uploader's folder destination in every state that a power cut may leave."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from contract.batch import content_md5
from tests.chaos.crash_states import Moment, Tree, crash_states, put_tree, watching
from uploader.directory_store import DirectoryStore
from uploader.store import Blob, Stored, attempt

NAME = "readings/site=s/hour=07/ab-1-0123456789abcdef.jsonl.gz"
BODY = b"some rows that are longer than nothing"
BLOB = Blob(NAME, BODY, content_md5(BODY), {})
FILE = f"stored/{NAME}"


def states(moments: Iterable[Moment]) -> list[Tree]:
    found = {tuple(sorted(tree.items())) for moment in moments for tree in crash_states(moment)}
    return [dict(tree) for tree in sorted(found, key=repr)]


def put(root: Path) -> None:
    assert attempt(DirectoryStore(root / "stored"), BLOB, probe=False) == Stored()


def recorded(root: Path, work: Callable[[Path], None]) -> list[Moment]:
    root.mkdir()
    with watching(root) as moments:
        work(root)
    return moments


def test_a_batch_has_its_name_with_all_its_bytes_or_not_at_all(tmp_path: Path) -> None:
    moments = recorded(tmp_path / "edge", put)
    found = states(moments)
    assert len(found) > 5
    assert {tree.get(FILE, b"absent") for tree in found} == {b"absent", BODY}


def test_a_batch_that_is_confirmed_survives_a_power_cut(tmp_path: Path) -> None:
    moments = recorded(tmp_path / "edge", put)
    assert {tree.get(FILE) for tree in crash_states(moments[-1])} == {BODY}


def test_whatever_a_power_cut_leaves_the_next_attempt_makes_it_right(tmp_path: Path) -> None:
    for number, tree in enumerate(states(recorded(tmp_path / "edge", put))):
        root = tmp_path / f"after-{number}"
        put_tree(root, tree)
        with watching(root) as moments:
            outcome = attempt(DirectoryStore(root / "stored"), BLOB, probe=False)
        assert isinstance(outcome, Stored)
        assert {again.get(FILE) for again in crash_states(moments[-1])} == {BODY}


def test_a_batch_that_was_found_there_is_durable_once_it_is_confirmed(tmp_path: Path) -> None:
    """A power cut may follow a kill: the file has its name, but the folder was never synced."""

    def killed_before_the_folders_are_synced(root: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DirectoryStore, "_sync_folders", lambda *_: None)
            put(root)

    def both(root: Path) -> None:
        killed_before_the_folders_are_synced(root)
        outcome = attempt(DirectoryStore(root / "stored"), BLOB, probe=True)
        assert outcome == Stored(already=True)

    moments = recorded(tmp_path / "edge", both)
    assert {tree.get(FILE) for tree in crash_states(moments[-1])} == {BODY}


@pytest.mark.parametrize("forgotten", ["file", "folder"])
def test_a_store_that_forgets_a_sync_is_found_out(tmp_path: Path, forgotten: str) -> None:
    def careless(root: Path) -> None:
        part, target = root / ".part", root / "file"
        with part.open("xb") as file:
            file.write(BODY)
            file.flush()
            if forgotten != "file":
                os.fsync(file.fileno())
        part.rename(target)
        if forgotten != "folder":
            handle = os.open(root, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)

    moments = recorded(tmp_path / "edge", careless)
    assert {tree.get("file") for tree in crash_states(moments[-1])} > {BODY}
