"""Acknowledgements go out strictly in the order of arrival, each once, and never for a dead connection."""

from hypothesis import given
from hypothesis import strategies as st

from edge_module.ack_queue import AckQueue, Ticket


@given(st.lists(st.one_of(st.none(), st.integers(0, 30)), max_size=60))
def test_acknowledged_is_always_the_leading_run_of_completed_packets(steps: list[int | None]) -> None:
    """None: a packet arrives. A number: that packet is completed, perhaps again."""
    queue = AckQueue()
    tickets: list[Ticket] = []
    completed: set[int] = set()
    acknowledged: list[int] = []
    for step in steps:
        if step is None:
            tickets.append(queue.arrive(len(tickets)))
        elif step < len(tickets):
            completed.add(step)
            acknowledged += queue.complete(tickets[step])
        leading = next((i for i in range(len(tickets)) if i not in completed), len(tickets))
        assert acknowledged == list(range(leading))
        assert len(queue) == len(tickets) - leading


def test_tickets_of_a_dead_connection_acknowledge_nothing() -> None:
    queue = AckQueue()
    before = queue.arrive(1)
    queue.void()
    after = queue.arrive(1)
    assert queue.complete(before) == queue.complete(after) == []
