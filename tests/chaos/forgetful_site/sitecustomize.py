"""Python imports this at its start when the folder is on PYTHONPATH: SQLite is on the forgetful disk from then on."""

import os
import sqlite3

if "EDGEWEIR_CHAOS_DISK" in os.environ:
    from tests.chaos.forgetful import connect

    sqlite3.connect = connect  # type: ignore[assignment]  # it quacks like it, as far as our processes go
