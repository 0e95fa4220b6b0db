"""What one transaction sends: rows, episode events and insight windows, as the policy lets them out, cut to size.

Only what the policy's lanes carry gets into the bytes made here. A closed lane sends nothing.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec import Raw

from anomaly_router.episodes import Added, Change, Closed, Episode, Opened
from anomaly_router.insights import Closing
from anomaly_router.lane_rows import EventKind, episode_event, insight_window
from anomaly_router.series import SeriesState
from contract.lanes import Lane
from contract.limits import BODY_LIMIT_BYTES
from contract.messages import (
    Anomalies,
    EpisodeEvent,
    Insights,
    InsightWindow,
    Model,
    Readings,
    chunk_by_size,
    encode,
)
from edge_module import Transaction
from policy import Policy

# All rows of one event; the rest is room for what surrounds them: names, times, the message's own head.
ROW_LIMIT_BYTES = BODY_LIMIT_BYTES - 12 * 1024

R = TypeVar("R", Raw, EpisodeEvent, InsightWindow)


class _PendingEvent:
    """Rows of one episode that no event carries yet; `episode` is as it was after the last of them."""

    def __init__(self, kind: EventKind, state: SeriesState, episode: Episode) -> None:
        self.kind: EventKind = kind
        self.state = state
        self.episode = episode
        self.rows: list[Raw] = []
        self.size = 0


class Outgoing:
    """Collects in the order of arrival; `emit` sends it. One object per transaction and model."""

    def __init__(self, policy: Policy, model: Model | None, *, rows_per_event: int) -> None:
        self._policy = policy
        self._model = model
        self._rows_per_event = rows_per_event
        self._readings: list[Raw] = []
        self._events: list[EpisodeEvent] = []
        self._windows: list[InsightWindow] = []
        self._pending: dict[str, _PendingEvent] = {}

    def add_reading(self, row: bytes) -> None:
        self._readings.append(Raw(row))

    def add_changes(self, state: SeriesState, changes: Sequence[Change], row: bytes) -> None:
        """Episode changes that one row made; `row` is what of it may leave on lane anomalies."""
        for change in changes:
            episode = change.episode
            match change:
                case Opened():
                    self._pending[episode.id] = _PendingEvent("opened", state, episode)
                case Added():
                    self._add_row(episode, state, row)
                case Closed():
                    self._flush(episode.id)
                    self._events.append(episode_event(self._policy.lanes["anomalies"], "closed", state, episode, []))

    def add_closings(self, state: SeriesState, closings: Sequence[Closing]) -> None:
        lane = self._policy.lanes["insights"]
        self._windows.extend(insight_window(lane, state, closing) for closing in closings)

    def emit(self, tx: Transaction) -> None:
        """Send everything, split to fit; the counters count what left."""
        for episode in list(self._pending):
            self._flush(episode)
        hash_, site, model = self._policy.hash, tx.site, self._model
        self._send(tx, "readings", self._readings, lambda rows: encode(Readings(hash_, site, model, rows)))
        self._send(tx, "anomalies", self._events, lambda rows: encode(Anomalies(hash_, site, model, rows)))
        self._send(tx, "insights", self._windows, lambda rows: encode(Insights(hash_, site, model, rows)))

    def _send(self, tx: Transaction, lane: Lane, rows: list[R], message: Callable[[list[R]], bytes]) -> None:
        if not rows:
            return
        if not self._policy.lanes[lane].is_open:
            tx.count("withheld_rows", len(rows), lane=lane)
            return
        body = message(rows)
        if len(body) <= BODY_LIMIT_BYTES:
            tx.emit(lane, body)
        else:
            sizes = [len(row) if isinstance(row, Raw) else len(encode(row)) for row in rows]
            for piece in chunk_by_size(sizes, overhead=len(message([]))):
                tx.emit(lane, message(rows[piece]))
        tx.count("sent_rows", len(rows), lane=lane)

    def _add_row(self, episode: Episode, state: SeriesState, row: bytes) -> None:
        pending = self._pending.get(episode.id)
        if pending is not None and pending.rows and self._is_full(pending, len(row)):
            self._flush(episode.id)
            pending = None
        if pending is None:
            pending = self._pending[episode.id] = _PendingEvent("updated", state, episode)
        pending.episode = episode
        pending.rows.append(Raw(row))
        pending.size += len(row) + 1

    def _is_full(self, pending: _PendingEvent, size: int) -> bool:
        return len(pending.rows) >= self._rows_per_event or pending.size + size > ROW_LIMIT_BYTES

    def _flush(self, episode: str) -> None:
        pending = self._pending.pop(episode, None)
        if pending is not None:
            lane = self._policy.lanes["anomalies"]
            self._events.append(episode_event(lane, pending.kind, pending.state, pending.episode, pending.rows))
