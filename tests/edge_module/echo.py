"""The smallest honest module: it counts and echoes. Tests run it in a Bench, and as a process (`python -m`)."""

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar

import msgspec

from edge_module import Context, Hold, Incoming, MethodError, Module, Poison, Refused, Transaction, run


class EchoSettings(msgspec.Struct, frozen=True):
    copies: Annotated[int, msgspec.Meta(ge=0, le=10, description="messages emitted per input")] = 1
    hold: Annotated[bool, msgspec.Meta(description="acknowledge nothing")] = False
    forbidden: Annotated[str, msgspec.Meta(description="must not be 'no'")] = ""


class Echo(Module[EchoSettings]):
    name: ClassVar[str] = "echo"
    settings_type = EchoSettings
    inputs = frozenset({"in"})
    schema = "CREATE TABLE IF NOT EXISTS echo_count (one INTEGER PRIMARY KEY CHECK (one = 1), total INTEGER NOT NULL);"

    def open(self, db: sqlite3.Connection, settings: EchoSettings, context: Context) -> None:
        time.sleep(float(os.environ.get("ECHO_OPENING_SECS", "0")))
        self.db = db
        self.context = context
        db.execute("INSERT OR IGNORE INTO echo_count VALUES (1, 0)")
        self.rollback()
        self.configure(settings)

    def configure(self, settings: EchoSettings) -> None:
        if settings.forbidden == "no":
            raise Refused("$.forbidden", "must not be 'no'")
        self.settings = settings

    def has_timestamp(self, body: bytes) -> bool:
        return b'"t"' in body

    def handle(self, message: Incoming, tx: Transaction) -> None:
        if self.settings.hold:
            raise Hold("told_to_hold")
        self.total += 1
        tx.db.execute("UPDATE echo_count SET total = ?", (self.total,))
        if message.body == b"poison":
            raise Poison("not_json", "this is poison")
        if message.body == b"hang":
            self.context.log.info("hanging")
            time.sleep(60)
        if message.body == b"bug":
            raise ZeroDivisionError("a bug")
        for copy in range(self.settings.copies):
            body = {"total": self.total, "copy": copy, "said": message.body.decode()}
            tx.emit("out", json.dumps(body).encode(), {"copy": str(copy)})
        tx.count("echoed_messages")

    async def background(self) -> None:
        """With ECHO_CHORES it uses the store all the time, from tasks of its own, as the uploader does.

        With ECHO_FREEZES the event loop stands still, with ECHO_CHATTERS it does nothing but log.
        """
        if os.environ.get("ECHO_FREEZES"):
            time.sleep(60)  # noqa: ASYNC251
        while os.environ.get("ECHO_CHATTERS"):
            self.context.log.info("chatter")
        if os.environ.get("ECHO_CHORES"):
            async with asyncio.TaskGroup() as group:
                for _ in range(16):
                    group.create_task(self._do_chores())

    async def _do_chores(self) -> None:
        while True:
            await self.context.transact(lambda tx: None)

    def rollback(self) -> None:
        (self.total,) = self.db.execute("SELECT total FROM echo_count").fetchone()

    def methods(self) -> Mapping[str, Callable[[object], object]]:
        return {"total": lambda _: {"total": self.total}, "fail": _fail}

    def status(self) -> Mapping[str, object]:
        return {"total": self.total}


def _fail(payload: object) -> object:
    raise MethodError(418, f"told to fail with {payload!r}")


if __name__ == "__main__":
    run(Echo())
