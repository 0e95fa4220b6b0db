"""Between the event loop, the worker thread and blocking calls.

Blocking calls run on daemon threads, because Python waits at exit for every other kind: an upload that hangs would keep
a module from stopping within its ten seconds. What is given up that way is found again by its name after the restart.

The threads are started without `threading.Thread`: its `start` waits until the new thread has said that it runs, for
ever when memory was too short for it to say so, and the event loop would wait with it.
"""

import _thread
import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_daemon_thread(call: Callable[[], T]) -> T:
    """Run a blocking call; its result or what it raised. When cancelled, it goes on alone and nobody hears of it.

    Raises RuntimeError when no thread can be started.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]  # None only when T holds None

    def work() -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = call()
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, failure)

    _thread.start_new_thread(work, ())
    return await answer


class Bell:
    """Any thread rings it; one task waits. A ring while nobody waits is heard by the next wait."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._rung.set)

    async def wait(self, secs: float) -> None:
        """Until it rings, at most this long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(secs):
                await self._rung.wait()
        self._rung.clear()
