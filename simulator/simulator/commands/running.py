"""How every command of the simulator runs: one event loop, clean on Ctrl-C, user errors in one line."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine
from typing import NoReturn, TypeVar

import typer

from simulator.errors import UserError

T = TypeVar("T")
BAD_INPUT = 2
INTERRUPTED = 130


def run(command: str, main: Callable[[], Coroutine[object, object, T]], *, interrupted: int = INTERRUPTED) -> T:
    """Run to the end. UserError: its line on stderr and exit code 2.

    Ctrl-C or SIGTERM: everything is stopped first, then exit code `interrupted`.
    """
    try:
        return asyncio.run(_until_signal(main()))
    except UserError as error:
        fail(command, str(error))
    except asyncio.CancelledError:
        raise typer.Exit(interrupted) from None


def fail(command: str, text: str, code: int = BAD_INPUT) -> NoReturn:
    typer.echo(f"edgeweir {command}: {text}", err=True)
    raise typer.Exit(code)


async def _until_signal(main: Coroutine[object, object, T]) -> T:
    """A signal cancels the work once; what comes while it cleans up changes nothing."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(main)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except BaseExceptionGroup as group:
        raise _only_error(group) from None
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):
                loop.remove_signal_handler(number)


def _only_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """A task group's one user error; the whole group when there is anything else in it."""
    leaves: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop()
        if isinstance(error, BaseExceptionGroup):
            pending.extend(error.exceptions)
        else:
            leaves.append(error)
    first = leaves[0]
    return first if all(type(leaf) is type(first) for leaf in leaves) else group
