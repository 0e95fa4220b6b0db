"""Durable MQTT sessions: the subscriptions of each client, and nothing else.

edgeHub keeps only subscriptions; an outgoing PUBLISH is never part of a session, it waits in a routing queue. The SDK
subscribes once and never again, so a session that is lost makes a module deaf for good.
"""

from simulator.runtime.store import Store

Subscriptions = dict[str, int]  # filter -> granted QoS


class Sessions:
    def __init__(self, store: Store) -> None:
        self._store = store

    def load(self, client_id: str) -> Subscriptions:
        rows = self._store.read("SELECT filter, qos FROM subscriptions WHERE client = ?", (client_id,))
        return dict(rows)

    def subscribe(self, client_id: str, subscriptions: Subscriptions) -> None:
        self._store.write_many(
            "INSERT OR REPLACE INTO subscriptions VALUES (?, ?, ?)",
            [(client_id, topic_filter, qos) for topic_filter, qos in subscriptions.items()],
        )

    def unsubscribe(self, client_id: str, filters: tuple[str, ...]) -> None:
        self._store.write_many(
            "DELETE FROM subscriptions WHERE client = ? AND filter = ?", [(client_id, f) for f in filters]
        )

    def delete(self, client_id: str) -> None:
        self._store.write("DELETE FROM subscriptions WHERE client = ?", (client_id,))
