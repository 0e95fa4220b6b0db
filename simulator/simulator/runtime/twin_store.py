"""The stored twins: one row per client, read through a small cache."""

import msgspec

from simulator.runtime.store import Store
from simulator.runtime.twins import EMPTY, Twin


class TwinStore:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._cache: dict[str, Twin] = {}
        store.on_rollback(self._cache.clear)

    def get(self, client_id: str) -> Twin:
        """The twin; a new identity has empty documents of version 1."""
        if (cached := self._cache.get(client_id)) is not None:
            return cached
        rows = self._store.read(
            "SELECT desired, desired_version, reported, reported_version, tags, synced FROM twins WHERE client = ?",
            (client_id,),
        )
        twin = EMPTY if not rows else _restore(*rows[0])
        self._cache[client_id] = twin
        return twin

    def put(self, client_id: str, twin: Twin) -> None:
        self._cache[client_id] = twin
        self._store.write(
            "INSERT OR REPLACE INTO twins VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                client_id,
                _text(twin.desired),
                twin.desired_version,
                _text(twin.reported),
                twin.reported_version,
                _text(twin.tags),
                None if twin.synced is None else _text(twin.synced),
            ),
        )

    def delete(self, client_id: str) -> None:
        self._cache.pop(client_id, None)
        self._store.write("DELETE FROM twins WHERE client = ?", (client_id,))


def _text(document: object) -> str:
    return msgspec.json.encode(document).decode()


def _restore(
    desired: str, desired_version: int, reported: str, reported_version: int, tags: str, synced: str | None
) -> Twin:
    return Twin(
        msgspec.json.decode(desired),
        desired_version,
        msgspec.json.decode(reported),
        reported_version,
        msgspec.json.decode(tags),
        None if synced is None else msgspec.json.decode(synced),
    )
