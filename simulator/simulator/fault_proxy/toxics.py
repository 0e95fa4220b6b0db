"""Toxiproxy's toxics as pure functions of time: (when, bytes) in, (when, bytes) out.

Names, attributes and units are those of toxiproxy's README ("Toxics"); where it leaves something open, what its source
does. Times of attributes are milliseconds (the slicer's delay: microseconds), as there; instants (`at`) are seconds of
whatever clock the caller has. `upstream` is client to server, `downstream` (the default) server to client.

A `Toxic` describes. Its `stage` is the state of one toxic on one direction of one connection; it promises that the
events it gives never go back in time, so that bytes keep their order.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

Stream = Literal["upstream", "downstream"]
STREAMS: Final[tuple[Stream, ...]] = ("upstream", "downstream")
_MS = 1e-3
_US = 1e-6
_BYTES_PER_KB = 1000
# A slow link hands over bytes this often, as toxiproxy does, rather than each read at its end.
_BANDWIDTH_SLICE_MS = 100


@dataclass(frozen=True)
class Send:
    """These bytes leave at this instant."""

    at: float
    data: bytes


@dataclass(frozen=True)
class End:
    """The sender's end of data (FIN) is passed on at this instant."""

    at: float


@dataclass(frozen=True)
class Cut:
    """The whole connection ends at this instant, both ways: closed, or reset (RST)."""

    at: float
    reset: bool = False


Event = Send | End | Cut


@dataclass(frozen=True, kw_only=True)
class Toxic:
    """What all toxics have: a direction, a name (`<type>_<stream>` unless given), a share of the connections."""

    type: ClassVar[str]

    stream: Stream = "downstream"
    toxicity: float = 1.0
    """Probability, 0 to 1, that it applies to a connection; drawn once for each."""
    name: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.toxicity <= 1:
            raise ValueError("toxicity must be from 0 to 1")
        if self.stream not in STREAMS:
            raise ValueError("stream must be upstream or downstream")
        if not self.name:
            object.__setattr__(self, "name", f"{self.type}_{self.stream}")

    def stage(self, rng: random.Random) -> "Stage":
        raise NotImplementedError


class Stage:
    """A toxic at work on one direction of one connection. This one passes everything on."""

    def begin(self, at: float) -> Iterator[Event]:
        """At the opening of the connection, or when the toxic is added to an open one."""
        yield from ()

    def apply(self, event: Event) -> Iterator[Event]:
        yield event

    def leave(self, at: float) -> Iterator[Event]:
        """When the toxic is removed from an open connection."""
        yield from ()


@dataclass(frozen=True, kw_only=True)
class Down(Toxic):
    """The proxy is disabled: new connections are refused, open ones closed. Has no direction; toxicity is always 1."""

    type = "down"

    def __post_init__(self) -> None:
        if self.toxicity != 1:
            raise ValueError("down applies to all connections: toxicity must be 1")
        object.__setattr__(self, "name", self.name or self.type)

    def stage(self, rng: random.Random) -> Stage:
        return Stage()


@dataclass(frozen=True, kw_only=True)
class Latency(Toxic):
    """All data is delayed by `latency` +/- `jitter` (ms). Delays of pieces overlap: throughput stays as it is."""

    type = "latency"
    latency: float
    jitter: float = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_negative(latency=self.latency, jitter=self.jitter)

    def stage(self, rng: random.Random) -> Stage:
        return _LatencyStage(self, rng)


class _LatencyStage(Stage):
    def __init__(self, toxic: Latency, rng: random.Random) -> None:
        self._toxic = toxic
        self._rng = rng
        self._last = float("-inf")

    def apply(self, event: Event) -> Iterator[Event]:
        match event:
            case Send(at, data):
                delay = self._toxic.latency + self._rng.uniform(-1, 1) * self._toxic.jitter
                self._last = max(self._last, at + max(0.0, delay) * _MS)
                yield Send(self._last, data)
            case _:
                yield _not_before(self._last, event)


@dataclass(frozen=True, kw_only=True)
class Bandwidth(Toxic):
    """At most `rate` KB (1000 bytes) per second."""

    type = "bandwidth"
    rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rate <= 0:
            raise ValueError("rate must be above 0")

    def stage(self, rng: random.Random) -> Stage:
        return _BandwidthStage(self)


class _BandwidthStage(Stage):
    def __init__(self, toxic: Bandwidth) -> None:
        self._bytes_per_sec = toxic.rate * _BYTES_PER_KB
        self._piece_bytes = max(1, int(self._bytes_per_sec * _BANDWIDTH_SLICE_MS * _MS))
        self._free_at = float("-inf")

    def apply(self, event: Event) -> Iterator[Event]:
        match event:
            case Send(at, data):
                self._free_at = max(self._free_at, at)
                for start in range(0, len(data), self._piece_bytes):
                    piece = data[start : start + self._piece_bytes]
                    self._free_at += len(piece) / self._bytes_per_sec
                    yield Send(self._free_at, piece)
            case _:
                yield _not_before(self._free_at, event)


@dataclass(frozen=True, kw_only=True)
class SlowClose(Toxic):
    """The end of data is passed on `delay` ms late."""

    type = "slow_close"
    delay: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_negative(delay=self.delay)

    def stage(self, rng: random.Random) -> Stage:
        return _SlowCloseStage(self)


class _SlowCloseStage(Stage):
    def __init__(self, toxic: SlowClose) -> None:
        self._delay_secs = toxic.delay * _MS

    def apply(self, event: Event) -> Iterator[Event]:
        yield End(event.at + self._delay_secs) if isinstance(event, End) else event


@dataclass(frozen=True, kw_only=True)
class Timeout(Toxic):
    """No data gets through, and the connection is closed `timeout` ms after its opening or the toxic's arrival.

    0: it stays open until the toxic is removed. What was held off is lost, so removal closes the connection too.
    """

    type = "timeout"
    timeout: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_negative(timeout=self.timeout)

    def stage(self, rng: random.Random) -> Stage:
        return _TimeoutStage(self)


class _TimeoutStage(Stage):
    def __init__(self, toxic: Timeout) -> None:
        self._timeout_secs = toxic.timeout * _MS

    def begin(self, at: float) -> Iterator[Event]:
        if self._timeout_secs:
            yield Cut(at + self._timeout_secs)

    def apply(self, event: Event) -> Iterator[Event]:
        if not isinstance(event, Send):
            yield event

    def leave(self, at: float) -> Iterator[Event]:
        yield Cut(at)


@dataclass(frozen=True, kw_only=True)
class ResetPeer(Toxic):
    """The connection is reset (RST) `timeout` ms after the first data of this direction came, which is lost.

    Upstream, the server sees nothing of the request; downstream, it saw the request, and its answer is lost.
    """

    type = "reset_peer"
    timeout: float = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_negative(timeout=self.timeout)

    def stage(self, rng: random.Random) -> Stage:
        return _ResetPeerStage(self)


class _ResetPeerStage(Stage):
    def __init__(self, toxic: ResetPeer) -> None:
        self._timeout_secs = toxic.timeout * _MS
        self._armed = False

    def apply(self, event: Event) -> Iterator[Event]:
        if isinstance(event, Cut):
            yield event
        elif not self._armed:
            self._armed = True
            yield Cut(event.at + self._timeout_secs, reset=True)

    def leave(self, at: float) -> Iterator[Event]:
        if self._armed:
            yield Cut(at, reset=True)


@dataclass(frozen=True, kw_only=True)
class Slicer(Toxic):
    """Data goes in pieces of `average_size` +/- `size_variation` bytes, with `delay` microseconds after each."""

    type = "slicer"
    average_size: int
    size_variation: int = 0
    delay: float = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_negative(delay=self.delay)
        if not 0 <= self.size_variation < self.average_size:
            raise ValueError("size_variation must be from 0 to below average_size")

    def stage(self, rng: random.Random) -> Stage:
        return _SlicerStage(self, rng)


class _SlicerStage(Stage):
    def __init__(self, toxic: Slicer, rng: random.Random) -> None:
        self._toxic = toxic
        self._rng = rng
        self._free_at = float("-inf")

    def apply(self, event: Event) -> Iterator[Event]:
        match event:
            case Send(at, data):
                self._free_at = max(self._free_at, at)
                for piece in self._slices(data):
                    yield Send(self._free_at, piece)
                    self._free_at += self._toxic.delay * _US
            case _:
                yield _not_before(self._free_at, event)

    def _slices(self, data: bytes) -> Iterator[bytes]:
        """Halves, about, until the size is right: toxiproxy's way to have no small or large one at either end."""
        variation = self._toxic.size_variation
        if len(data) - self._toxic.average_size <= variation:
            yield data
            return
        middle = len(data) // 2 + self._rng.randint(-variation, variation)
        yield from self._slices(data[:middle])
        yield from self._slices(data[middle:])


@dataclass(frozen=True, kw_only=True)
class LimitData(Toxic):
    """The connection is closed once `bytes` bytes of this direction were passed on since the toxic came."""

    type = "limit_data"
    bytes: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_negative(bytes=self.bytes)

    def stage(self, rng: random.Random) -> Stage:
        return _LimitDataStage(self)


class _LimitDataStage(Stage):
    def __init__(self, toxic: LimitData) -> None:
        self._remaining = toxic.bytes
        self._is_over = False

    def apply(self, event: Event) -> Iterator[Event]:
        match event:
            case Send(at, data):
                if self._is_over:
                    return
                if passed := data[: self._remaining]:
                    self._remaining -= len(passed)
                    yield Send(at, passed)
                if not self._remaining:
                    self._is_over = True
                    yield Cut(at)
            case _:
                yield event


def _not_before(at: float, event: End | Cut) -> Event:
    if at <= event.at:
        return event
    return End(at) if isinstance(event, End) else Cut(at, event.reset)


def _refuse_negative(**attributes: float) -> None:
    for name, value in attributes.items():
        if value < 0:
            raise ValueError(f"{name} must not be negative")
