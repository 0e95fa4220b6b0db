"""One direction of one connection as a pure state machine: the toxics on it, and what is on its way.

The rule for what is on its way when a toxic is removed: it goes at once (toxiproxy drops no data either). What is on
its way when one is added keeps its time. Toxics apply in the order in which they were added.
"""

import heapq
import random
from collections.abc import Callable, Iterable, Iterator

from simulator.fault_proxy.toxics import Cut, Down, End, Event, Send, Stage, Stream, Toxic


class Link:
    def __init__(
        self, seed: int, connection: int, stream: Stream, changed: Callable[[str], None] = lambda name: None
    ) -> None:
        """`changed` is told the name of a toxic for each event that it changes or makes."""
        self._stream = stream
        self._note_change = changed
        self.reseed(seed, connection)
        self._stages: dict[str, Stage] = {}
        self._queue: list[tuple[float, int, Event]] = []
        self._sequence = 0
        self._queued_bytes = 0

    @property
    def queued_bytes(self) -> int:
        """Bytes taken in and not yet given out."""
        return self._queued_bytes

    @property
    def next_at(self) -> float | None:
        """The instant, in seconds, of the next event; None when nothing is on its way."""
        return self._queue[0][0] if self._queue else None

    def reseed(self, seed: int, connection: int) -> None:
        """For toxics that are still to come."""
        self._identity = f"{seed}/{connection}/{self._stream}"

    def add(self, toxic: Toxic, at: float) -> None:
        """Applies the toxic if it is of this direction and this connection draws it.

        The draw depends on the seed, the connection's number and the toxic's name only, not on what else happens.
        """
        if toxic.stream != self._stream or isinstance(toxic, Down):
            return
        rng = random.Random(f"{self._identity}/{toxic.name}")
        if rng.random() < toxic.toxicity:
            stage = toxic.stage(rng)
            self._stages[toxic.name] = stage
            begun = list(stage.begin(at))
            if begun:
                self._note_change(toxic.name)
            self._put(begun)

    def remove(self, name: str, at: float) -> None:
        stage = self._stages.pop(name, None)
        if stage is None:
            return
        self._release(at)
        self._put(stage.leave(at))

    def take(self, at: float, data: bytes) -> None:
        if data:
            self._put(self._through(Send(at, data)))

    def end(self, at: float) -> None:
        """The sender has no more data."""
        self._put(self._through(End(at)))

    def give(self, at: float) -> Event | None:
        """The next event if its time has come."""
        if not self._queue or self._queue[0][0] > at:
            return None
        event = heapq.heappop(self._queue)[2]
        if isinstance(event, Send):
            self._queued_bytes -= len(event.data)
        return event

    def _through(self, event: Event) -> Iterable[Event]:
        events: Iterable[Event] = [event]
        for name, stage in self._stages.items():
            events = [result for each in events for result in self._applied(name, stage, each)]
        return events

    def _applied(self, name: str, stage: Stage, event: Event) -> list[Event]:
        results = list(stage.apply(event))
        if results != [event]:
            self._note_change(name)
        return results

    def _put(self, events: Iterable[Event] | Iterator[Event]) -> None:
        for event in events:
            # The sequence keeps the order of arrival among events of one instant.
            heapq.heappush(self._queue, (event.at, self._sequence, event))
            self._sequence += 1
            if isinstance(event, Send):
                self._queued_bytes += len(event.data)

    def _release(self, at: float) -> None:
        """Cuts stay: they belong to toxics that are still there, or to bytes that are lost already."""
        self._queue = [
            entry if isinstance(entry[2], Cut) else (min(entry[0], at), entry[1], entry[2]) for entry in self._queue
        ]
        heapq.heapify(self._queue)
