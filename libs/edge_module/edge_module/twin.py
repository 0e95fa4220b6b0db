"""The module's twin: requests with deadlines, settings read anew, and what is reported.

Invariants
- The desired document is read whole after every connect, at every push and every ten minutes; `$version` decides
  whether it is applied. One that was refused is applied at every read: what it names (a file) may be there by now.
  Pushes carry only a hint: edgeHub neither queues nor repeats them.
- A report is sent as the difference to what the hub has, coalesced; a patch that failed is sent again.
- The report is at most 16 KB; health and settings come first.

edgeHub answers a reported patch with 204, an empty body and no `$version`; and the answer comes before the PUBACK.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from edge_module.clock import Clock
from edge_module.connection import Connection
from edge_module.engine import SettingsOutcome
from edge_module.metrics import Metrics
from edge_module.report import difference, fit, merge
from edge_module.wire import DesiredPatch, TwinResponse, twin_get_topic, twin_patch_topic

_DEADLINE_SECS = 30.0
_READ_AGAIN_SECS = 600.0
_RETRY_SECS = 5.0
_REPORT_EVERY_SECS = 60.0
_REPORT_SPACING_SECS = 2.0

Apply = Callable[[dict[str, object]], Awaitable[SettingsOutcome]]
BuildReport = Callable[[], Awaitable[dict[str, object]]]


class TwinError(Exception):
    """The hub did not answer a twin request, or answered with an error."""


class Document(msgspec.Struct):
    desired: dict[str, object] = {}
    reported: dict[str, object] = {}


class TwinRequests:
    """Get and patch over whichever connection there is."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._numbers = itertools.count(1)
        self._open: dict[str, asyncio.Future[TwinResponse]] = {}
        self.connection: Connection | None = None

    def answered(self, response: TwinResponse) -> None:
        future = self._open.get(response.request)
        if future is not None and not future.done():
            future.set_result(response)

    def connection_ended(self) -> None:
        for future in self._open.values():
            if not future.done():
                future.set_exception(TwinError("the connection ended"))

    async def get(self) -> Document:
        """Raises TwinError."""
        response = await self._request(twin_get_topic, b" ")
        try:
            return msgspec.json.decode(response.body, type=Document)
        except msgspec.DecodeError as error:
            raise TwinError(f"the twin is unreadable: {error}") from None

    async def patch(self, reported: Mapping[str, object]) -> None:
        """Raises TwinError."""
        await self._request(twin_patch_topic, msgspec.json.encode(reported))

    async def _request(self, topic: Callable[[str], str], payload: bytes) -> TwinResponse:
        if self.connection is None:
            raise TwinError("not connected")
        request = f"{next(self._numbers)}"
        future: asyncio.Future[TwinResponse] = asyncio.get_running_loop().create_future()
        self._open[request] = future
        try:
            self.connection.publish(topic(request), payload, lambda: None)
            async with asyncio.timeout(self._clock.scaled(_DEADLINE_SECS)):
                response = await future
        except TimeoutError:
            raise TwinError("no answer in time") from None
        finally:
            del self._open[request]
        if response.status >= 300:
            raise TwinError(f"status {response.status}")
        return response


class Twin:
    def __init__(
        self,
        requests: TwinRequests,
        *,
        apply: Apply,
        build_report: BuildReport,
        clock: Clock,
        metrics: Metrics,
        log: logging.Logger,
    ) -> None:
        self.requests = requests
        self._apply = apply
        self._build_report = build_report
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._read_due = asyncio.Event()
        self._report_due = asyncio.Event()
        self._version: object = object()  # of the desired document last applied; unlike any at first
        self._hub_has: dict[str, object] | None = None
        self.outcome: SettingsOutcome | None = None

    def attached(self, connection: Connection) -> None:
        self.requests.connection = connection
        # What the hub has is asked anew: the identity may have been made again meanwhile.
        self._hub_has = None
        self._read_due.set()

    def detached(self, connection: Connection) -> None:
        if connection is self.requests.connection:
            self.requests.connection = None
            self.requests.connection_ended()

    def desired_changed(self, patch: DesiredPatch) -> None:
        if patch.version is None or patch.version != self._version:
            self._read_due.set()

    def report_soon(self) -> None:
        self._report_due.set()

    async def keep_settings(self) -> None:
        """Read and apply the desired properties whenever that is due. Until cancelled."""
        while True:
            await _wait(self._read_due, self._clock.scaled(_READ_AGAIN_SECS))
            if self.requests.connection is None:
                self._read_due.clear()
                continue
            self._read_due.clear()
            try:
                await self.read()
            except TwinError as error:
                self._metrics.count("twin_failures")
                self._log.warning("cannot read the twin", extra={"fields": {"detail": error}})
                await asyncio.sleep(self._clock.scaled(_RETRY_SECS))
                self._read_due.set()

    @property
    def is_report_due(self) -> bool:
        return self._report_due.is_set()

    def reported(self) -> None:
        self._report_due.clear()

    async def read(self) -> None:
        """Apply the desired document if there is a reason to. Raises TwinError."""
        twin = await self.requests.get()
        if self._hub_has is None:
            self._hub_has = {key: value for key, value in twin.reported.items() if not key.startswith("$")}
            self._report_due.set()
        version = twin.desired.get("$version")
        is_new = version != self._version
        if not is_new and (self.outcome is None or self.outcome.outcome == "accepted"):
            return
        outcome = await self._apply(twin.desired)
        self._version = version
        if is_new or outcome != self.outcome:
            self._say(outcome)
            self._report_due.set()
        self.outcome = outcome

    def _say(self, outcome: SettingsOutcome) -> None:
        fields = {key: value for key, value in msgspec.structs.asdict(outcome).items() if value not in (None, ())}
        if outcome.outcome == "refused":
            self._log.error("settings refused (bad_settings)", extra={"fields": fields})
        else:
            self._log.info("settings accepted", extra={"fields": fields})

    async def keep_reporting(self) -> None:
        """Report what changed: at once when asked to, otherwise every minute. Until cancelled."""
        while True:
            await _wait(self._report_due, self._clock.scaled(_REPORT_EVERY_SECS))
            self.reported()
            try:
                await self.report_now()
            except TwinError as error:
                self._metrics.count("twin_failures")
                self._log.info("cannot report", extra={"fields": {"detail": error}})
                await asyncio.sleep(self._clock.scaled(_RETRY_SECS))
                self._report_due.set()
            await asyncio.sleep(self._clock.scaled(_REPORT_SPACING_SECS))

    async def report_now(self) -> None:
        """Raises TwinError."""
        if self.requests.connection is None or self._hub_has is None:
            return
        patch = difference(self._hub_has, fit(await self._build_report()))
        if patch:
            await self.requests.patch(patch)
            self._hub_has = merge(self._hub_has, patch)


async def _wait(event: asyncio.Event, secs: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(secs):
            await event.wait()
