"""Direct methods: each request is answered once, between two messages.

Nothing is kept: when the connection ends before the answer, edgeHub's caller has its time-out.
"""

import asyncio
import logging
from typing import Any

import msgspec

from contract.limits import BODY_LIMIT_BYTES
from edge_module.connection import Connection
from edge_module.engine import Engine
from edge_module.wire import MethodRequest, method_response_topic
from edge_module.worker import Worker

_AT_ONCE = 16


class MethodServer:
    def __init__(self, worker: Worker, engine: Engine[Any], *, log: logging.Logger) -> None:
        self._worker = worker
        self._engine = engine
        self._log = log
        self._running: set[asyncio.Task[None]] = set()

    def asked(self, connection: Connection, request: MethodRequest) -> None:
        if len(self._running) >= _AT_ONCE:
            _answer(connection, request, 429, {"error": "too many calls at once"})
            return
        task = asyncio.get_running_loop().create_task(self._serve(connection, request), name=f"method {request.name}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, connection: Connection, request: MethodRequest) -> None:
        try:
            payload = msgspec.json.decode(request.body) if request.body.strip() else None
        except msgspec.DecodeError as error:
            _answer(connection, request, 400, {"error": f"the payload is not JSON: {error}"})
            return
        status, answer = await self._worker.run(self._engine.invoke, request.name, payload)
        _answer(connection, request, status, answer)


def _answer(connection: Connection, request: MethodRequest, status: int, answer: object) -> None:
    try:
        body = msgspec.json.encode(answer)
    except (TypeError, ValueError) as error:
        status, body = 500, msgspec.json.encode({"error": f"the answer is not JSON: {error}"})
    if len(body) > BODY_LIMIT_BYTES:
        status, body = 500, msgspec.json.encode({"error": f"the answer has {len(body)} bytes"})
    connection.publish(method_response_topic(status, request.request), body, lambda: None)
