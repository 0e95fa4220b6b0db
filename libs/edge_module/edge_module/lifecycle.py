"""A module's life as a process: environment, lock, store, event loop, signals, exit code.

Exit codes: 0 after SIGTERM or SIGINT (within ten seconds, the container's grace), 1 when a part failed (the runtime
starts the module again), 2 when it cannot start as it is configured: one line on stderr says what to do.
"""

import _thread
import asyncio
import fcntl
import logging
import os
import signal
import sqlite3
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import IO, Any, NoReturn

from edge_module.backoff import Backoff
from edge_module.clock import SystemClock
from edge_module.environment import BadEnvironment, Environment, read_environment
from edge_module.faults import disk_reason
from edge_module.health import Health, HealthServer
from edge_module.host import Host
from edge_module.hub_client import Credentials, KeyCredentials
from edge_module.kill_points import make_reach
from edge_module.log import set_up_logging
from edge_module.metrics import Metrics
from edge_module.module import Module
from edge_module.store import Store, StoreFromTheFuture, read_boot_id

_LAST_EXIT_SECS = 8.5
_WATCH_SECS = 12.0
_WATCH_AT_LEAST_SECS = 0.5
_MISSED_BEATS = 10
_LAST_WORDS_SECS = 2.0
_PLACES = 8


class CannotStart(Exception):
    """Why, in one line that says what to do."""


def run(module: Module[Any]) -> NoReturn:
    """Live until SIGTERM; what a module's `__main__.py` calls."""
    try:
        code = _run(module)
    except (BadEnvironment, CannotStart) as error:
        sys.stderr.write(f"{module.name}: {error}\n")
        code = 2
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # The worker thread may still be inside the module's code; its transaction is abandoned, which is safe.
    os._exit(code)


def _run(module: Module[Any]) -> int:
    environment = read_environment()
    log = set_up_logging(environment.log_level)
    metrics = Metrics(module.name)
    with _lock(environment.state_dir, module.name):
        server, link = _serve_health(environment, metrics)
        clock = SystemClock(environment.time_scale)
        stop = _StopSignal()
        health = link.health
        store = _open_store(environment, module.name, clock, health, log, stop)
        if store is None:
            return 0
        log.info("starting", extra={"fields": {"module": module.name, "http_port": server.port}})
        try:
            asyncio.run(_live(module, environment, store, clock, metrics, health, log, link, stop))
        except BaseExceptionGroup as group:
            for error in group.exceptions:
                log.critical("a part of the module failed", exc_info=error)
            return 1
        finally:
            server.close()
            log.info("stopped", extra={"fields": {"module": module.name}})
    return 0


async def _live(
    module: Module[Any],
    environment: Environment,
    store: Store,
    clock: SystemClock,
    metrics: Metrics,
    health: Health,
    log: logging.Logger,
    link: "_Link",
    stop: "_StopSignal",
) -> None:
    host = Host(
        module,
        environment,
        store,
        credentials=_credentials(environment),
        clock=clock,
        metrics=metrics,
        health=health,
        log=log,
        reach=make_reach(environment.kill_at),
    )
    link.host = host
    _watch(host, clock, log)
    await host.run(stop.as_event(asyncio.get_running_loop()))


def _watch(host: Host, clock: SystemClock, log: logging.Logger) -> None:
    """End the process when its event loop stands still for two minutes: nothing in it can recover then.

    The loop never waits for a disk or a module's code, only for what must not take long, such as a thread that starts.
    Missed beats are counted, not seconds: a process that was stopped and goes on has missed one.
    """

    def watch() -> None:
        missed, before = 0, -1
        while missed < _MISSED_BEATS:
            time.sleep(max(clock.scaled(_WATCH_SECS), _WATCH_AT_LEAST_SECS))
            missed = missed + 1 if host.beats == before else 0
            before = host.beats
        # The loop may stand still because nobody reads what it logs; then this line would wait as well.
        _thread.start_new_thread(last_exit, ())
        fields = {"at": _place_of_main_thread()}
        log.critical("the event loop stands still; the module starts anew", extra={"fields": fields})
        os._exit(1)

    def last_exit() -> None:
        time.sleep(_LAST_WORDS_SECS)
        os._exit(1)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()


def _place_of_main_thread() -> str:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    stack = traceback.extract_stack(frame, limit=_PLACES)
    return " < ".join(f"{Path(each.filename).name}:{each.lineno}:{each.name}" for each in reversed(stack))


class _StopSignal:
    """SIGTERM and SIGINT, from the first moment on. Whatever hangs, the process ends in time, with code 0."""

    def __init__(self) -> None:
        self.is_set = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event: asyncio.Event | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._received)

    def as_event(self, loop: asyncio.AbstractEventLoop) -> asyncio.Event:
        self._event = asyncio.Event()
        self._loop = loop
        if self.is_set:
            self._event.set()
        return self._event

    def _received(self, number: int, frame: object) -> None:
        if self.is_set:
            return
        self.is_set = True
        guard = threading.Timer(_LAST_EXIT_SECS, os._exit, (0,))
        guard.daemon = True
        guard.start()
        if self._loop is not None and self._event is not None:
            self._loop.call_soon_threadsafe(self._event.set)


class _Link:
    """What the health server and the health reasons see of the host, which is made later.

    Until then a module may wait for its disk, for as long as that takes; its health says so all the same.
    """

    def __init__(self) -> None:
        self.host: Host | None = None
        self.health = Health(self.changed)

    def changed(self) -> None:
        if self.host is not None:
            self.host.health_changed()

    def vitals(self) -> dict[str, object]:
        if self.host is not None:
            return self.host.vitals()
        return {"is_alive": True, "health": self.health.reasons() or "starting"}


def _serve_health(environment: Environment, metrics: Metrics) -> tuple[HealthServer, _Link]:
    link = _Link()
    try:
        server = HealthServer(
            environment.http_host, environment.http_port, exposition=metrics.exposition, vitals=link.vitals
        )
    except OSError as error:
        raise CannotStart(
            f"cannot listen on {environment.http_host}:{environment.http_port} ({error.strerror}):"
            " free the port, or set EDGEWEIR_HTTP_PORT (0 takes any)"
        ) from None
    server.start()
    return server, link


def _lock(state_dir: Path, name: str) -> IO[str]:
    """Held as long as the returned file is open. Two processes on one store would evict each other at the hub, too."""
    path = state_dir / f"{name}.lock"
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise CannotStart(
            f"cannot write to the state folder {state_dir} ({error.strerror}): mount a writable folder there,"
            " or set EDGEWEIR_STATE_DIR"
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise CannotStart(
            f"another process of this module uses {state_dir}: stop it, or set EDGEWEIR_STATE_DIR"
        ) from None
    return file


def _open_store(
    environment: Environment,
    name: str,
    clock: SystemClock,
    health: Health,
    log: logging.Logger,
    stop: _StopSignal,
) -> Store | None:
    """Wait for the disk, if it must be; None when the module is stopped meanwhile."""
    backoff = Backoff(clock.scaled(1.0), clock.scaled(30.0))
    while not stop.is_set:
        try:
            store = Store(
                environment.state_dir / f"{name}.db", clock=clock, boot_id=read_boot_id(environment.boot_id_file)
            )
        except StoreFromTheFuture as error:
            raise CannotStart(f"{error}: start the newer version again, or give it an empty state folder") from None
        except (OSError, sqlite3.Error) as error:
            reason = disk_reason(error)
            if reason is None:
                raise
            health.set(reason, str(error))
            log.error("cannot open the store", extra={"fields": {"reason": reason, "detail": error}})
            time.sleep(backoff.next_secs())
        else:
            health.clear("disk_full")
            health.clear("disk_error")
            return store
    return None


def _credentials(environment: Environment) -> Credentials:
    if environment.workload is not None:
        return environment.workload
    assert environment.key_sign is not None
    assert environment.ca_file is not None
    return KeyCredentials(environment.key_sign, environment.ca_file.read_text)
