"""Direct methods: request to a client, its answer back to whoever asked."""

import asyncio
import uuid
from collections.abc import Callable

from simulator.runtime.connection import Connection
from simulator.runtime.timing import METHOD_AFTER_SUBSCRIPTION_SECS, Pace
from simulator.runtime.topics import MethodResponse, method_topic

RESPONSE_TIMEOUT_SECS = 30.0


class MethodFailed(Exception):
    """No answer. `status` is 404 (not there, or not subscribed) or 504 (there, but silent)."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Methods:
    """Calls that are under way. Nothing is retried, a late answer is ignored."""

    def __init__(self, find: Callable[[str], Connection | None], pace: Pace) -> None:
        self._find = find
        self._pace = pace
        self._calls: dict[tuple[str, str], asyncio.Future[tuple[int, bytes]]] = {}
        self._changed = asyncio.Event()

    def clients_changed(self) -> None:
        """Somebody connected or subscribed: waiting calls look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def invoke(
        self,
        client_id: str,
        name: str,
        payload: bytes,
        *,
        response_timeout_secs: float = RESPONSE_TIMEOUT_SECS,
        connect_timeout_secs: float = 0.0,
    ) -> tuple[int, bytes]:
        """(status, payload as JSON text) of the client's answer. Raises MethodFailed."""
        connection = await self._target(client_id, connect_timeout_secs)
        rid = str(uuid.uuid4())
        answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._calls[client_id, rid] = answer
        try:
            if not connection.publish(method_topic(name, rid), payload):
                raise MethodFailed(404, f"{client_id} has no subscription that takes method {name}")
            return await asyncio.wait_for(answer, response_timeout_secs)
        except TimeoutError:
            raise MethodFailed(504, f"{client_id} did not answer method {name} in time") from None
        finally:
            self._calls.pop((client_id, rid), None)

    def answered(self, client_id: str, response: MethodResponse, payload: bytes) -> None:
        """A client's answer; one that nobody waits for is ignored."""
        answer = self._calls.get((client_id, response.rid))
        if answer is not None and not answer.done():
            answer.set_result((response.status, payload))

    def _ready(self, client_id: str) -> Connection | None:
        connection = self._find(client_id)
        return connection if connection is not None and connection.features.methods else None

    async def _target(self, client_id: str, connect_timeout_secs: float) -> Connection:
        if (connection := self._ready(client_id)) is not None:
            return connection
        try:
            async with asyncio.timeout(connect_timeout_secs):
                while self._ready(client_id) is None:
                    await self._changed.wait()
        except TimeoutError:
            raise MethodFailed(404, f"{client_id} is not connected or not subscribed to methods") from None
        # edgeHub sends what waited some seconds after the subscription came.
        await asyncio.sleep(self._pace(METHOD_AFTER_SUBSCRIPTION_SECS))
        if (connection := self._ready(client_id)) is None:
            raise MethodFailed(404, f"{client_id} went away again")
        return connection
