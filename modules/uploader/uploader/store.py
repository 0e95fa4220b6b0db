"""What a destination can do, and what becomes of one attempt. Blocking: the sender calls it from a thread of its own.

Rules of an attempt
1. Create, never overwrite. A blob that is there already is ours if its length, MD5 and metadata say so (the answer to
   an earlier attempt was lost), or if we may not look (its name carries the digest). Otherwise the name is taken.
2. A missing container is made once, then the blob is tried once more.
3. Everything else is a failure with a reason code. No failure loses the batch; the sender tries it again for ever.
"""

from typing import Protocol

import msgspec


class Blob(msgspec.Struct, frozen=True):
    name: str
    body: bytes
    md5: bytes
    metadata: dict[str, str]


class Found(msgspec.Struct, frozen=True):
    """What is there under a name. None where the destination keeps no such thing."""

    size: int
    md5: bytes | None = None
    metadata: dict[str, str] | None = None


class Stored(msgspec.Struct, frozen=True):
    """The destination has the batch; `already` when an earlier attempt had brought it."""

    already: bool = False


class NameTaken(msgspec.Struct, frozen=True):
    """Something else is stored under the name."""

    detail: str


class Failed(msgspec.Struct, frozen=True):
    """Not now. `reason` is a code of contract.reasons."""

    reason: str
    detail: str


Outcome = Stored | NameTaken | Failed


class StoreError(Exception):
    """Base of what a store raises."""


class AlreadyThere(StoreError):
    """Something has this name."""


class NotFound(StoreError):
    """Nothing has this name."""


class NoContainer(StoreError):
    """The container is missing."""


class MayNotLook(StoreError):
    """The credential allows writing, not reading."""


class NotNow(StoreError):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Store(Protocol):
    """Every method may raise NotNow."""

    def put(self, blob: Blob) -> None:
        """Create it whole and durable. Raises AlreadyThere (nothing changed), NoContainer."""
        ...

    def find(self, name: str) -> Found:
        """Raises NotFound, NoContainer, MayNotLook. Small and quick: it also tells whether the destination is there."""
        ...

    def create_container(self) -> None:
        """Make it; no error when it is there."""
        ...

    def credential_has_changed(self) -> bool:
        """Whether a new attempt would use another credential than the last one."""
        ...


def attempt(store: Store, blob: Blob, *, probe: bool) -> Outcome:
    """Bring the blob to the store. With `probe` a cheap question goes first, so that a body is not sent in vain."""
    try:
        if probe and (outcome := _look(store, blob)) is not None:
            return outcome
        return _put(store, blob)
    except NoContainer:
        return _create_container_and_put(store, blob)
    except NotNow as error:
        return Failed(error.reason, error.detail)


def _look(store: Store, blob: Blob) -> Outcome | None:
    try:
        return _compare(blob, store.find(blob.name))
    except (NotFound, MayNotLook):
        return None


def _put(store: Store, blob: Blob) -> Outcome:
    try:
        store.put(blob)
        return Stored()
    except AlreadyThere:
        pass
    try:
        return _compare(blob, store.find(blob.name))
    except MayNotLook:
        return Stored(already=True)
    except NotFound:
        return Failed("storage_error", "a blob was there and is gone again")


def _create_container_and_put(store: Store, blob: Blob) -> Outcome:
    try:
        store.create_container()
        return _put(store, blob)
    except NoContainer:
        return Failed("container_missing", "made, and missing again")
    except NotNow as error:
        return Failed("container_missing" if error.reason == "auth_refused" else error.reason, error.detail)


def _compare(blob: Blob, found: Found) -> Outcome:
    if found.size != len(blob.body):
        return NameTaken(f"{blob.name} has {found.size} bytes, the batch {len(blob.body)}")
    if found.md5 is not None and found.md5 != blob.md5:
        return NameTaken(f"{blob.name} has another MD5")
    if found.metadata is not None:
        theirs = {key.lower(): value for key, value in found.metadata.items()}
        for key, value in blob.metadata.items():
            if theirs.get(key) != value:
                return NameTaken(f"{blob.name} has {key} {theirs.get(key)!r}, the batch {value!r}")
    return Stored(already=True)
