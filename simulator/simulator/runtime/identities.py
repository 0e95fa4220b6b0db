"""The identity registry: the edge device, its modules, its leaf devices, each with two generated keys. Durable."""

import base64
import secrets
from dataclasses import dataclass

from simulator.runtime.store import Store


@dataclass(frozen=True, slots=True)
class Identity:
    device: str
    module: str  # "" for a device
    primary_key: str  # base64, as a connection string carries it
    secondary_key: str
    generation: str
    enabled: bool

    @property
    def client_id(self) -> str:
        return f"{self.device}/{self.module}" if self.module else self.device

    @property
    def keys(self) -> tuple[bytes, bytes]:
        return base64.b64decode(self.primary_key), base64.b64decode(self.secondary_key)


class Registry:
    """All identities, cached in memory: a CONNECT asks for them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._load()
        store.on_rollback(self._load)

    def _load(self) -> None:
        rows = self._store.read(
            "SELECT device, module, primary_key, secondary_key, generation, enabled FROM identities"
        )
        self._all = {(r[0], r[1]): Identity(r[0], r[1], r[2], r[3], r[4], bool(r[5])) for r in rows}

    def get(self, device: str, module: str = "") -> Identity | None:
        return self._all.get((device, module))

    def modules_of(self, device: str) -> list[Identity]:
        return [i for i in self._all.values() if i.device == device and i.module]

    def devices(self) -> list[Identity]:
        return [i for i in self._all.values() if not i.module]

    def ensure(
        self,
        device: str,
        module: str = "",
        *,
        primary_key: str | None = None,
        secondary_key: str | None = None,
        enabled: bool | None = None,
    ) -> Identity:
        """The identity, made with fresh keys if it is new; given keys or state replace the stored one."""
        old = self.get(device, module)
        identity = Identity(
            device,
            module,
            primary_key or (old.primary_key if old else _new_key()),
            secondary_key or (old.secondary_key if old else _new_key()),
            old.generation if old else str(secrets.randbelow(10**18)),
            (old.enabled if old else True) if enabled is None else enabled,
        )
        if identity != old:
            self._save(identity)
        return identity

    def remove(self, device: str, module: str = "") -> list[Identity]:
        """Removes the identity, and with a device all its modules; returns what is gone."""
        gone = [i for i in self._all.values() if i.device == device and (not module or i.module == module)]
        for identity in gone:
            del self._all[identity.device, identity.module]
            self._store.write(
                "DELETE FROM identities WHERE device = ? AND module = ?", (identity.device, identity.module)
            )
        return gone

    def _save(self, identity: Identity) -> None:
        self._all[identity.device, identity.module] = identity
        self._store.write(
            "INSERT OR REPLACE INTO identities VALUES (?, ?, ?, ?, ?, ?)",
            (
                identity.device,
                identity.module,
                identity.primary_key,
                identity.secondary_key,
                identity.generation,
                int(identity.enabled),
            ),
        )


def _new_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()
