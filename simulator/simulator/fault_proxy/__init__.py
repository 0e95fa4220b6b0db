"""A TCP proxy that breaks what goes through it: toxiproxy's toxics, lost responses, and a record of HTTP requests."""

from simulator.fault_proxy.clock import Clock, SystemClock
from simulator.fault_proxy.http_watch import Exchange, HttpWatch, LoseResponse, Request, any_request
from simulator.fault_proxy.proxy import FaultProxy, run_fault_proxy
from simulator.fault_proxy.schedule import Add, Lose, Remove, Step, run_schedule
from simulator.fault_proxy.toxics import (
    Bandwidth,
    Down,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
    Toxic,
)

__all__ = [
    "Add",
    "Bandwidth",
    "Clock",
    "Down",
    "Exchange",
    "FaultProxy",
    "HttpWatch",
    "Latency",
    "LimitData",
    "Lose",
    "LoseResponse",
    "Remove",
    "Request",
    "ResetPeer",
    "Slicer",
    "SlowClose",
    "Step",
    "SystemClock",
    "Timeout",
    "Toxic",
    "any_request",
    "run_fault_proxy",
    "run_schedule",
]
