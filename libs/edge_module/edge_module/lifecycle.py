"""A module's life as a process: environment, store, hub, pump, health, signals, exit code."""

from typing import NoReturn, TypeVar

import msgspec

from edge_module.module import Module

S = TypeVar("S", bound=msgspec.Struct)


def run(module: Module[S]) -> NoReturn:
    """Live until SIGTERM; what a module's `__main__.py` calls."""
    raise NotImplementedError
