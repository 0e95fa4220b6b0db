"""What becomes of one attempt, over stores that are real folders with a restriction of their own."""

from pathlib import Path

import pytest

from contract.batch import content_md5
from uploader.directory_store import DirectoryStore
from uploader.store import (
    Blob,
    Failed,
    Found,
    MayNotLook,
    NameTaken,
    NoContainer,
    NotNow,
    Stored,
    attempt,
)

BLOB = Blob("readings/x", b"rows", content_md5(b"rows"), {"batch_no": "1"})


class WriteOnly(DirectoryStore):
    """As with a signature that allows creating and nothing else."""

    def find(self, name: str) -> Found:
        raise MayNotLook


class WithMetadata(DirectoryStore):
    metadata: dict[str, str] | None = None
    md5: bytes | None = None

    def find(self, name: str) -> Found:
        found = super().find(name)
        return Found(found.size, self.md5, self.metadata)


class NoContainerYet(DirectoryStore):
    """`may_make` says whether the credential allows making it."""

    def __init__(self, root: Path, *, may_make: bool) -> None:
        super().__init__(root)
        self.may_make = may_make
        self.made = 0

    def put(self, blob: Blob) -> None:
        if not self.made:
            raise NoContainer
        super().put(blob)

    def create_container(self) -> None:
        if not self.may_make:
            raise NotNow("auth_refused", "HTTP 403")
        self.made += 1


@pytest.mark.parametrize("probe", [False, True])
def test_where_we_may_not_look_the_digest_in_the_name_is_the_proof(tmp_path: Path, probe: bool) -> None:
    store = WriteOnly(tmp_path)
    assert attempt(store, BLOB, probe=probe) == Stored()
    assert attempt(store, BLOB, probe=probe) == Stored(already=True)


@pytest.mark.parametrize(
    ("md5", "metadata", "is_ours"),
    [
        (None, {"Batch_No": "1", "added": "later"}, True),
        (None, {"batch_no": "2"}, False),
        (None, {}, False),
        (BLOB.md5, None, True),
        (b"another", None, False),
    ],
)
def test_a_blob_of_the_name_is_ours_if_md5_and_metadata_say_so(
    tmp_path: Path, md5: bytes | None, metadata: dict[str, str] | None, is_ours: bool
) -> None:
    store = WithMetadata(tmp_path)
    store.md5, store.metadata = md5, metadata
    assert attempt(store, BLOB, probe=False) == Stored()
    again = attempt(store, BLOB, probe=True)
    assert isinstance(again, Stored if is_ours else NameTaken)


def test_a_missing_container_is_made_and_the_blob_tried_again(tmp_path: Path) -> None:
    store = NoContainerYet(tmp_path, may_make=True)
    assert attempt(store, BLOB, probe=False) == Stored()
    assert store.made == 1


def test_a_container_that_may_not_be_made_is_a_reason_of_its_own(tmp_path: Path) -> None:
    outcome = attempt(NoContainerYet(tmp_path, may_make=False), BLOB, probe=False)
    assert outcome == Failed("container_missing", "HTTP 403")
