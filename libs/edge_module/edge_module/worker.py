"""The one thread that owns the store and runs the module's code."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """Jobs run one after the other, in the order they were given. `after_job` is called on the loop after each, once
    its waiter has had its turn: an acknowledgement goes out before what was emitted is published, as edgeHub sends its
    next message only then."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="module")
        self.after_job: Callable[[], None] = lambda: None

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        try:
            # A cancelled waiter does not stop the job: what it commits is picked up after a later one.
            return await loop.run_in_executor(self._executor, lambda: job(*args, **kwargs))
        finally:
            loop.call_soon(self.after_job)

    def close(self) -> None:
        """Take no more jobs; does not wait for the one in hand."""
        self._executor.shutdown(wait=False, cancel_futures=True)
