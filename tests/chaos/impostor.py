"""A second client with the identity of a module or a device: it takes the connection over and acknowledges nothing."""

import asyncio
import base64
import ssl
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from paho.mqtt.client import Client, ConnectFlags, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from simulator.local_site import LocalSite
from simulator.runtime.config import DEFAULT_HUB_HOST
from simulator.runtime.sas import make_token
from tests.chaos.arena import CellFailed

_ANSWER_SECS = 10.0


class Impostor:
    """`async with await impostor_of(...)`: connected. It leaves with DISCONNECT if it `says_goodbye`, else without."""

    def __init__(self, site: LocalSite, client_id: str, key: str, *, clean_session: bool, says_goodbye: bool) -> None:
        device, _, module = client_id.partition("/")
        self._says_goodbye = says_goodbye
        self._answered = threading.Event()
        self._reason = "no answer"
        self._site = site
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=clean_session,
            protocol=MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        uri = f"{DEFAULT_HUB_HOST}/devices/{device}" + (f"/modules/{module}" if module else "")
        token = make_token(base64.b64decode(key), uri, int(time.time()) + 3600)
        client.username_pw_set(f"{DEFAULT_HUB_HOST}/{client_id}/?api-version=2021-04-12", token)
        client.tls_set_context(ssl.create_default_context(cafile=Path(site.info.ca_file)))
        client.on_connect = self._on_connect
        self._client = client

    def _on_connect(
        self, client: Client, userdata: object, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self._reason = str(reason) if reason.is_failure else ""
        self._answered.set()

    async def __aenter__(self) -> Self:
        """Raises CellFailed when edgeHub does not take it, which would make the fault no fault."""
        try:
            await asyncio.to_thread(self._connect)
        except OSError as error:
            await asyncio.to_thread(self._leave)
            raise CellFailed(f"the second client cannot connect: {error!r}") from None
        if self._reason:
            await asyncio.to_thread(self._leave)
            raise CellFailed(f"the second client is not accepted: {self._reason}")
        return self

    def _connect(self) -> None:
        self._client.connect(self._site.info.gateway_host, self._site.info.port, 60)
        self._client.loop_start()
        self._answered.wait(_ANSWER_SECS)

    def subscribe(self, topic_filter: str) -> None:
        self._client.subscribe(topic_filter, 1)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._leave)

    def _leave(self) -> None:
        sock = self._client.socket()
        if sock is not None and not self._says_goodbye:
            sock.close()
        self._client.disconnect()
        self._client.loop_stop()


async def impostor_of(site: LocalSite, client_id: str, *, clean_session: bool, says_goodbye: bool) -> Impostor:
    """With a token made from the identity's own key."""
    device, _, module = client_id.partition("/")
    identity = await site.control.identity(device, module)
    key = str(identity["authentication"]["symmetricKey"]["primaryKey"])
    return Impostor(site, client_id, key, clean_session=clean_session, says_goodbye=says_goodbye)
