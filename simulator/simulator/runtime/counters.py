"""What the hub counted since it started; every dropped message has a reason here."""

from collections import Counter


class Counters:
    def __init__(self) -> None:
        self.received = 0  # telemetry packets from clients
        self.delivered: Counter[str] = Counter()  # endpoint -> messages acknowledged by it
        self.retries: Counter[str] = Counter()  # endpoint -> deliveries that failed and will be tried again
        self.dropped: Counter[str] = Counter()  # reason -> messages lost

    def as_json(self) -> dict[str, object]:
        return {
            "messages_received": self.received,
            "messages_delivered": dict(self.delivered),
            "delivery_retries": dict(self.retries),
            "messages_dropped": dict(self.dropped),
        }
