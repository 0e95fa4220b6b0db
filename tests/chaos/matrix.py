"""Every cell there is, by name."""

from typing import Final

from tests.chaos import (
    faults_commit,
    faults_disk,
    faults_identity,
    faults_link,
    faults_power,
    faults_process,
    faults_syscalls,
)
from tests.chaos.arena import Cell

_TABLES: Final = (
    faults_process,
    faults_identity,
    faults_commit,
    faults_link,
    faults_disk,
    faults_syscalls,
    faults_power,
)

CELLS: Final[dict[str, Cell]] = {cell.name: cell for table in _TABLES for cell in table.CELLS}


def find_cell(name: str) -> Cell:
    """Raises LookupError with what there is."""
    if name not in CELLS:
        raise LookupError(f"there is no cell {name}; there are {', '.join(CELLS)}")
    return CELLS[name]
