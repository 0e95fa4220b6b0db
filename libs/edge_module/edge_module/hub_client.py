"""Staying connected to edgeHub for ever, as one identity.

Promises
- Notices a connection that carries nothing any more and was never closed: within two keep-alive times.
- Connects again after every loss, refusal or failure, also the first time: capped exponential back-off with jitter. The
  reason is in the health (`hub_unreachable`, `hub_refused`, `hub_untrusted`, `workload_unreachable`).
- The token is renewed by takeover: a new connection with the same client id, after which edgeHub closes the old one.
  Publishing pauses meanwhile, so that nothing is in flight twice; what comes on the old connection is still handled.
- Subscriptions are made on every connection: edgeHub keeps them, but a lost session would leave the module deaf.
"""

import asyncio
import logging
import random
import ssl
from collections.abc import Awaitable, Callable
from typing import Protocol

from edge_module.backoff import Backoff
from edge_module.clock import Clock
from edge_module.connection import Connection, ConnectionRefused, Receiver
from edge_module.health import Health
from edge_module.metrics import Metrics
from edge_module.sas import Sign, make_token
from edge_module.wire import Address
from edge_module.workload import WorkloadError

_CONNECT_SECS = 30.0
_KEEP_ALIVE_SECS = 60.0
# However time is scaled for tests, a handshake and an answer to a ping take their time on a busy machine.
_CONNECT_AT_LEAST_SECS = 3.0
_KEEP_ALIVE_AT_LEAST_SECS = 5.0
_BACKOFF_FIRST_SECS = 1.0
_BACKOFF_CAP_SECS = 60.0
_STABLE_SECS = 30.0
# Renew when this part of the token's life is over; the jitter keeps modules that started together apart.
_RENEW_AT = (0.80, 0.90)
_QUIESCE_SECS = 5.0
_OLD_CLOSES_SECS = 5.0
_REASONS = ("hub_unreachable", "hub_refused", "hub_untrusted", "workload_unreachable")


class Credentials(Protocol):
    """Blocking; called in an executor. Both raise WorkloadError or OSError."""

    def trust_bundle(self) -> str: ...

    def sign(self, data: bytes) -> bytes: ...


class Listener(Receiver, Protocol):
    """Called on the event loop. `attached` comes before any packet's effect is published on the connection."""

    def attached(self, connection: Connection) -> None: ...

    def detached(self, connection: Connection) -> None: ...

    def quiesce(self) -> Awaitable[None]:
        """Stop publishing; done when nothing is in flight."""
        ...

    def resume(self) -> None: ...


class HubClient:
    def __init__(
        self,
        address: Address,
        *,
        gateway: str,
        port: int,
        product: str,
        credentials: Credentials,
        listener: Listener,
        token_ttl_secs: float,
        clock: Clock,
        health: Health,
        metrics: Metrics,
        log: logging.Logger,
    ) -> None:
        self._address = address
        self._gateway = gateway
        self._port = port
        self._product = product
        self._credentials = credentials
        self._listener = listener
        self._token_ttl_secs = token_ttl_secs
        self._clock = clock
        self._health = health
        self._metrics = metrics
        self._log = log
        self._tls: ssl.SSLContext | None = None
        self._is_taking_over = False
        self.connection: Connection | None = None

    async def run(self) -> None:
        """Until cancelled. The connection is left open: whoever stops the module closes it with `close`."""
        backoff = Backoff(self._clock.scaled(_BACKOFF_FIRST_SECS), self._clock.scaled(_BACKOFF_CAP_SECS))
        while True:
            started = self._clock.monotonic()
            if await self._try_connect():
                await self._serve()
                if self._clock.monotonic() - started >= self._clock.scaled(_STABLE_SECS):
                    backoff.reset()
            await asyncio.sleep(backoff.next_secs())

    def close(self) -> None:
        """Say goodbye, unless an input is unacknowledged: then only the socket is closed."""
        if self.connection is None:
            return
        if self.connection.unacknowledged():
            self.connection.close("stopped")
        else:
            self.connection.disconnect()

    async def _try_connect(self, *, takes_over: bool = False) -> bool:
        """Connect, or say in the health why not."""
        try:
            password = await self._password()
            if takes_over:
                await self._quiesce()
            connection = await self._connect(password)
        except ConnectionRefused as error:
            self._failed("hub_refused", error)
        except WorkloadError as error:
            self._failed("workload_unreachable", error)
        except ssl.SSLCertVerificationError as error:
            self._tls = None  # the trust bundle may have changed
            self._failed("hub_untrusted", error)
        except (OSError, TimeoutError) as error:
            self._failed("hub_unreachable", error)
        else:
            self._adopt(connection)
            return True
        return False

    async def _password(self) -> str:
        loop = asyncio.get_running_loop()
        expiry = int(self._clock.now_micros() / 1_000_000 + self._token_ttl_secs) + 1
        token = await loop.run_in_executor(None, make_token, self._credentials.sign, self._address.resource, expiry)
        if self._tls is None:
            self._tls = make_tls(await loop.run_in_executor(None, self._credentials.trust_bundle))
        return token

    async def _connect(self, password: str) -> Connection:
        assert self._tls is not None
        connection = Connection(
            self._address,
            gateway=self._gateway,
            port=self._port,
            product=self._product,
            password=password,
            tls=self._tls,
            receiver=self._listener,
            timeout_secs=max(self._clock.scaled(_CONNECT_SECS), _CONNECT_AT_LEAST_SECS),
            keep_alive_secs=round(max(self._clock.scaled(_KEEP_ALIVE_SECS), _KEEP_ALIVE_AT_LEAST_SECS)),
            log=self._log,
        )
        try:
            await connection.open()
        except BaseException:
            # edgeHub may send between CONNACK and SUBACK what it still has for this session.
            self._listener.detached(connection)
            raise
        return connection

    def _adopt(self, connection: Connection) -> None:
        connection.closed.add_done_callback(lambda why: self._ended(connection, why.result()))
        self.connection = connection
        for reason in _REASONS:
            self._health.clear(reason)
        self._metrics.count("hub_connects")
        self._log.info("connected", extra={"fields": {"gateway": self._gateway}})
        if connection.is_open:
            self._listener.attached(connection)

    def _ended(self, connection: Connection, why: str) -> None:
        self._listener.detached(connection)
        if connection is self.connection and not self._is_taking_over:
            self._log.warning("connection lost", extra={"fields": {"why": why}})

    def _failed(self, reason: str, error: Exception) -> None:
        text = str(error) or type(error).__name__
        self._health.set(reason, text)
        self._metrics.count("hub_connect_failures", reason=reason)
        self._log.warning("cannot connect", extra={"fields": {"reason": reason, "detail": text}})

    async def _serve(self) -> None:
        """Return when the connection is lost; take over with a new token before the old one ends."""
        while (connection := self.connection) is not None and connection.is_open:
            # wait() leaves the future alone when it times out.
            await asyncio.wait([connection.closed], timeout=self._token_ttl_secs * random.uniform(*_RENEW_AT))
            if connection.is_open:
                await self._renew(connection)

    async def _renew(self, old: Connection) -> None:
        backoff = Backoff(self._clock.scaled(_BACKOFF_FIRST_SECS), self._clock.scaled(_BACKOFF_CAP_SECS))
        while old.is_open:
            if await self._take_over(old):
                self._metrics.count("token_renewals")
                return
            await asyncio.wait([old.closed], timeout=backoff.next_secs())

    async def _take_over(self, old: Connection) -> bool:
        self._is_taking_over = True
        try:
            if not await self._try_connect(takes_over=True):
                return False
        finally:
            self._is_taking_over = False
            self._listener.resume()
        await asyncio.wait([old.closed], timeout=self._clock.scaled(_OLD_CLOSES_SECS))
        old.close("replaced")
        return True

    async def _quiesce(self) -> None:
        try:
            async with asyncio.timeout(self._clock.scaled(_QUIESCE_SECS)):
                await self._listener.quiesce()
        except TimeoutError:
            self._log.info("renewing the token with messages in flight")


class KeyCredentials:
    """The fallback of the device SDK: a key from a connection string and a CA file."""

    def __init__(self, sign: Sign, read_ca: Callable[[], str]) -> None:
        self._sign = sign
        self._read_ca = read_ca

    def sign(self, data: bytes) -> bytes:
        return self._sign(data)

    def trust_bundle(self) -> str:
        return self._read_ca()


def make_tls(trust_bundle: str) -> ssl.SSLContext:
    """Trust the bundle and nothing else. Raises WorkloadError when it holds no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=trust_bundle)
    except (ssl.SSLError, ValueError) as error:
        raise WorkloadError(f"the trust bundle holds no certificate: {error}") from None
    return context
