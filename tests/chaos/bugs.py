"""Builds with one planted bug each: small, plausible ones, such as a good engineer could make and a review could pass.

Each says what its author may have thought, under which faults it must show, and as what. Under those very faults the
honest build passes; that is the control which makes catching one worth anything.
"""

from dataclasses import dataclass
from typing import Final

from tests.chaos.builds import Build, Patch
from tests.chaos.results import CellResult

_PUMP: Final = "libs/edge_module/edge_module/pump.py"
_ENGINE: Final = "libs/edge_module/edge_module/engine.py"
_STORE: Final = "libs/edge_module/edge_module/store.py"
_ACK_QUEUE: Final = "libs/edge_module/edge_module/ack_queue.py"
_WINDOWS: Final = "modules/scorer/scorer/windows_store.py"
_BLOBS: Final = "modules/uploader/uploader/blob_store.py"
_SENDER: Final = "modules/uploader/uploader/sender.py"

ALL_MODULES: Final = ("scorer", "anomaly_router", "uploader")


@dataclass(frozen=True)
class Sabotage:
    """`parts` run the build; `cells` are the names of the cells under which it must show.

    It shows as a kind of fault that the oracle counts, `shows`, and by a problem that says `says`.
    """

    name: str
    build: Build
    parts: tuple[str, ...]
    cells: tuple[str, ...]
    shows: str
    why: str
    says: str = ""

    def is_shown_by(self, found: CellResult) -> bool:
        return found.faults.get(self.shows, 0) > 0 and any(self.says in problem for problem in found.problems)


def _sabotage(
    name: str, *patches: Patch, parts: tuple[str, ...], cells: tuple[str, ...], shows: str, why: str, says: str = ""
) -> Sabotage:
    return Sabotage(name, Build(name, patches), parts, cells, shows, why, says)


ACKNOWLEDGES_EARLY = _sabotage(
    "acknowledges_early",
    Patch(
        _PUMP,
        """\
        self._retry.clear()
        try:
""",
        """\
        self._retry.clear()
        self._acknowledge(pending)  # edgeHub brings the next message while this one is worked on
        try:
""",
    ),
    Patch(
        _PUMP,
        """\
        self._release("input flows again")
        self._acknowledge(pending)
""",
        """\
        self._release("input flows again")
""",
    ),
    parts=ALL_MODULES,
    cells=("scorer/sigkill_while_its_store_is_locked", "uploader/sigkill_while_its_store_is_locked"),
    shows="missing",
    why="edgeHub keeps one message unacknowledged, so a PUBACK before the commit doubles the throughput. What is in "
    "hand at a SIGKILL is on nobody's disk.",
)

OVERWRITES_BLOBS = _sabotage(
    "overwrites_blobs",
    Patch(_BLOBS, "                overwrite=False,\n", "                overwrite=True,\n"),
    parts=("uploader",),
    cells=("uploader/sigkill_around_an_upload",),
    shows="overwritten",
    says=" is created ",
    why="The name carries the digest of the content, so writing it again changes nothing. But it is written twice: "
    "whoever reacts to created blobs takes the rows twice, and a container that may not be altered refuses.",
)

SEEN_AFTERWARDS = _sabotage(
    "seen_afterwards",
    Patch(
        _ENGINE,
        """\
            self._reach("handled")
            self._record(message, identity, tx)
            self._finish(tx)
""",
        """\
            self._reach("handled")
            self._finish(tx)
            self.store.begin()
            self._record(message, identity, tx)  # its effect is safe: only now it may count as seen
            self._commit([])
""",
    ),
    parts=ALL_MODULES,
    cells=("anomaly_router/sigkill_around_a_commit", "scorer/sigkill_around_a_commit"),
    shows="duplicated",
    why="An identity that is recorded before its effect would lose the effect, so it is recorded after: in a "
    "transaction of its own. A SIGKILL between the two lets the repeat have its effect again.",
)

WINDOWS_FORGOTTEN = _sabotage(
    "windows_forgotten",
    Patch(_WINDOWS, '"INSERT OR REPLACE INTO scorer_series VALUES', '"INSERT OR IGNORE INTO scorer_series VALUES'),
    parts=("scorer",),
    cells=("scorer/sigkill_at_random_times",),
    shows="values_differ",
    why="A series' window is written once and from then on lives in memory alone, where every test without a restart "
    "finds it. After a restart rows are scored in the window that the series began with.",
)

OUTBOX_UNSYNCED = _sabotage(
    "outbox_unsynced",
    Patch(_STORE, '"PRAGMA synchronous = FULL"', '"PRAGMA synchronous = NORMAL"'),
    parts=ALL_MODULES,
    cells=("site/power_comes_and_goes", "site/power_cut"),
    shows="missing",
    why="The usual advice for WAL: NORMAL is as consistent and much faster. But it is not durable: at a power cut the "
    "last commits are gone, acknowledged inputs and numbers of published messages among them.",
)

TWIN_OUT_OF_TURN = _sabotage(
    "twin_out_of_turn",
    Patch(
        _ACK_QUEUE,
        """\
        ticket.completed = True
        ready: list[int] = []
        while self._waiting and self._waiting[0].completed:
            ready.append(self._waiting.popleft().mid)
        return ready
""",
        """\
        if ticket.completed or ticket not in self._waiting:
            return []
        ticket.completed = True
        self._waiting.remove(ticket)
        return [ticket.mid]
""",
    ),
    parts=ALL_MODULES,
    cells=("anomaly_router/sigkill_while_its_store_is_locked", "scorer/sigkill_while_its_store_is_locked"),
    shows="missing",
    why="Each packet is acknowledged as soon as it is done, as MQTT brokers like it. edgeHub takes the PUBACK of a "
    "twin packet for that of the input before it, which is still in hand: at a SIGKILL it is lost.",
)

SABOTAGES: Final = (
    ACKNOWLEDGES_EARLY,
    OVERWRITES_BLOBS,
    SEEN_AFTERWARDS,
    WINDOWS_FORGOTTEN,
    OUTBOX_UNSYNCED,
    TWIN_OUT_OF_TURN,
)
"""Those that every run must catch."""

CONFIRMED_EARLY: Final = _sabotage(
    "confirmed_early",
    Patch(
        _SENDER,
        """\
            self._context.reach("uploader_before_put")
            outcome""",
        """\
            self._context.reach("uploader_before_put")
            await self._confirm(delivery, Stored())  # no other attempt may begin on it meanwhile
            outcome""",
    ),
    Patch(
        _SENDER,
        "                return 0 if await self._confirm(delivery, outcome) else failures + 1\n",
        "                return 0\n",
    ),
    parts=("uploader",),
    cells=("uploader-storage/down", "uploader-storage/flapping"),
    shows="missing",
    why="A batch leaves the spool when it is taken to be sent, so that nobody takes it twice. After an attempt that "
    "failed nothing is left to repeat.",
)

BOOT_ID_IGNORED: Final = _sabotage(
    "boot_id_ignored",
    Patch(_STORE, 'if self._meta("boot_id") != boot_id.encode():', 'if self._meta("boot_id") is None:'),
    parts=ALL_MODULES,
    cells=("site/power_cut", "site/power_comes_and_goes"),
    shows="missing",
    why="What edgeHub has acknowledged is taken for safe. edgeHub does not sync it: at a power cut what modules had "
    "sent on in the last moments is gone, and nobody sends it again.",
)

MORE: Final = (CONFIRMED_EARLY, BOOT_ID_IGNORED)
"""Further ones, for the long run and for `python -m tests.chaos.sabotage NAME`."""
