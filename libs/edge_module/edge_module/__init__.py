"""A module's life at the edge: hub client, durable outbox, settings from the twin, lifecycle, health, metrics, logs.

A module subclasses `Module` and its `__main__.py` calls `run`. `edge_module.testing.Bench` runs it in a test.
"""

from edge_module.clock import Clock, SystemClock
from edge_module.errors import Hold, MethodError, Poison, Refused, TooLarge
from edge_module.lifecycle import run
from edge_module.module import Context, Incoming, Module, StoresRejected, Transact
from edge_module.outbox import OutboxMessage
from edge_module.transaction import Transaction

__all__ = [
    "Clock",
    "Context",
    "Hold",
    "Incoming",
    "MethodError",
    "Module",
    "OutboxMessage",
    "Poison",
    "Refused",
    "StoresRejected",
    "SystemClock",
    "TooLarge",
    "Transact",
    "Transaction",
    "run",
]
