"""Devices as customers build them: `azure-iot-device`, unmodified, over MQTT to a gateway or straight to a hub.

A device sends one message at a time. `send` sends it again, same id and same bytes, until the hub has acknowledged it;
so its messages arrive in its own order, some of them twice. `try_send` is one call, for devices that give up. The SDK
leaves much to its user, and each point is met here: the first connect is not retried; a refused connect is final; a
call without connectivity waits for ever; a call that failed or was given up may still be delivered later, even behind
messages that were sent after it (`simulator.ledger` keeps what that means). All clients of one process share one
pipeline thread, so nothing of ours runs in their callbacks.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from azure.iot.device import Message as SdkMessage
from azure.iot.device.aio import IoTHubDeviceClient
from azure.iot.device.exceptions import (
    ClientError,
    CredentialError,
    OperationCancelled,
    OperationTimeout,
    ServiceError,
)

from contract.messages import CONTENT_ENCODING, CONTENT_TYPE
from simulator.delivery import Message
from simulator.errors import UserError
from simulator.ledger import Attempt, Ledger

CALL_SECS = 30.0
_PAUSE_SECS = 1.0
_PAUSE_LIMIT_SECS = 10.0
# The SDK's errors have no common ancestor.
_SDK_ERRORS = (ClientError, OperationCancelled, OperationTimeout, ServiceError, TimeoutError, OSError)


@dataclass(frozen=True)
class Access:
    """How a device reaches its hub: an IoT Hub connection string, and the CA of a gateway's own certificate."""

    connection_string: str
    ca_pem: str | None = None

    @classmethod
    def from_files(cls, connection_string: str, ca_file: Path | None) -> "Access":
        """Raises UserError when the CA file cannot be read."""
        if ca_file is None:
            return cls(connection_string)
        try:
            return cls(connection_string, ca_file.read_text(encoding="ascii"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{ca_file}: cannot be read as a PEM certificate: {error}") from None

    @property
    def host(self) -> str:
        """Whom the device connects to: its gateway, where it has one."""
        return self._pairs.get("GatewayHostName") or self._pairs.get("HostName", "the hub")

    @property
    def _pairs(self) -> dict[str, str]:
        return dict(part.partition("=")[::2] for part in self.connection_string.split(";"))

    @property
    def device_id(self) -> str:
        """Raises UserError when the text names no device."""
        pairs = self._pairs
        if "DeviceId" not in pairs:
            raise UserError("the connection string names no DeviceId; use a device's connection string")
        return pairs["DeviceId"]


class Device:
    """One connected device. Use `async with`; `send` returns once the hub has acknowledged.

    What it tries is written to `ledger`, its own unless one is given. Every SDK call is given up after `call_secs`.
    """

    def __init__(
        self,
        access: Access,
        *,
        ledger: Ledger | None = None,
        note: Callable[[str], None] = lambda text: None,
        call_secs: float = CALL_SECS,
        pause_limit_secs: float = _PAUSE_LIMIT_SECS,
    ) -> None:
        self.name = access.device_id
        self.ledger = Ledger() if ledger is None else ledger
        self._host = access.host
        self._note = note
        self._call_secs = call_secs
        self._pause_limit_secs = pause_limit_secs
        try:
            self._client = IoTHubDeviceClient.create_from_connection_string(
                access.connection_string, server_verification_cert=access.ca_pem
            )
        except (ValueError, TypeError) as error:
            raise UserError(f"device {self.name}: the connection string is not usable: {error}") from None

    async def __aenter__(self) -> "Device":
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(*_SDK_ERRORS):
            await asyncio.wait_for(self._client.shutdown(), self._call_secs)

    @property
    def is_connected(self) -> bool:
        return bool(self._client.connected)

    async def connect(self, *, attempts: int | None = None) -> None:
        """Connect, trying again for ever unless `attempts` limits it; then UserError with the SDK's reason."""
        tried = 0
        while True:
            try:
                await asyncio.wait_for(self._client.connect(), self._call_secs)
                return
            except _SDK_ERRORS as error:
                tried += 1
                reason = self._reason(error)
                if attempts is not None and tried >= attempts:
                    raise UserError(f"device {self.name} cannot connect: {reason}") from None
            if attempts is None:
                self._note(f"{self.name}: connecting failed ({reason}), trying again")
            await self._pause(tried)

    async def try_send(self, message: Message) -> Attempt:
        """One SDK call. When it is cut off by cancellation, the attempt stays without an end."""
        attempt = self.ledger.begin(self.name, message)
        try:
            await asyncio.wait_for(self._client.send_message(_sdk_message(message)), self._call_secs)
        except _SDK_ERRORS as error:
            self.ledger.fail(attempt, self._reason(error))
        else:
            self.ledger.acknowledge(attempt)
        return attempt

    async def send(self, message: Message) -> None:
        """Send until it is acknowledged."""
        failures = 0
        while not (attempt := await self.try_send(message)).acknowledged:
            failures += 1
            self._note(f"{self.name}: sending {message.message_id} failed ({attempt.reason}), sending it again")
            await self._pause(failures)
            if not self.is_connected:
                await self.connect()

    async def send_all(
        self,
        messages: Iterable[Message],
        *,
        pause_secs: float = 0.0,
        progress: Callable[[Message], None] = lambda message: None,
    ) -> None:
        """Send in order. A message is due `pause_secs` after the one before was due, whatever sending took."""
        clock = asyncio.get_running_loop().time
        due = clock()
        for message in messages:
            await asyncio.sleep(max(0.0, due - clock()))
            # After an outage the backlog is not sent in one burst of catching up beyond one pause.
            due = max(due, clock() - pause_secs) + pause_secs
            await self.send(message)
            progress(message)

    async def _pause(self, failures: int) -> None:
        await asyncio.sleep(min(_PAUSE_SECS * 2**failures, self._pause_limit_secs))

    def _reason(self, error: BaseException) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {self._call_secs:g} s"
        return _sdk_reason(error, self._host)


@contextlib.contextmanager
def sdk_log(folder: Path) -> Iterator[None]:
    """What the SDK and its MQTT client have to say goes to devices.log: the screen tells what matters of it."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / "devices.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    loggers = [logging.getLogger(name) for name in ("azure.iot", "paho")]
    propagated = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, before in zip(loggers, propagated, strict=True):
            logger.removeHandler(handler)
            logger.propagate = before
        handler.close()


def _sdk_message(message: Message) -> SdkMessage:
    """A new object for each attempt: the SDK keeps the one it was given."""
    return SdkMessage(  # type: ignore[no-untyped-call]  # the SDK ships no types
        message.body,
        message_id=message.message_id,
        content_type=CONTENT_TYPE,
        content_encoding=CONTENT_ENCODING,
    )


def _sdk_reason(error: BaseException, host: str) -> str:
    if isinstance(error, CredentialError):
        return "the hub refused its credentials"
    cause = error.__cause__ or error
    # The SDK keeps the cause to itself; the names of its internal errors are all there is.
    match type(cause).__name__:
        case "TlsExchangeAuthError":
            return f"the certificate of {host} is not trusted; pass the CA behind it with --ca"
        case "ConnectionFailedError":
            return f"no connection to {host}:8883; check the host name and the network"
        case name:
            return f"{name}: {cause}".splitlines()[0]
