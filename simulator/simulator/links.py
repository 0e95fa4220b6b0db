"""The fault proxies of a site: where each listens, and that all of them stop together."""

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self

from simulator.errors import UserError
from simulator.fault_proxy import FaultProxy
from simulator.runtime.config import MQTT_PORT
from simulator.runtime.listening import listen_anywhere

STORAGE = "storage"
DEVICES = "devices"
_NOWHERE = ("127.0.0.1", 0)


class Links:
    """By the name of who connects through it, or `storage`. All stop when the context ends."""

    def __init__(self) -> None:
        self.by_name: dict[str, FaultProxy] = {}
        self.devices_host = ""
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def open(self, name: str, host: str, *, to: tuple[str, int], port: int = 0, http: bool = False) -> int:
        """The port that it listens on. Raises UserError."""
        proxy = FaultProxy(*to, http=http)
        try:
            proxy.start(host, port)
        except OSError as error:
            raise UserError(f"the fault proxy of {name} cannot listen on {host}:{port}: {error.strerror}") from None
        self._stack.push_async_callback(proxy.stop)
        self.by_name[name] = proxy
        return proxy.port

    def open_for_devices(self, address_file: Path) -> None:
        """Leads nowhere yet. On a loopback address of its own: the device SDK's port is fixed.

        The address is kept in the file, so that devices know it at the next start too. Raises UserError.
        """
        if address_file.is_file():
            self.devices_host = address_file.read_text(encoding="ascii").strip()
        else:
            self.devices_host, sock = listen_anywhere(MQTT_PORT)
            sock.close()
            address_file.write_text(self.devices_host, encoding="ascii")
        self.open(DEVICES, self.devices_host, to=_NOWHERE, port=MQTT_PORT)
