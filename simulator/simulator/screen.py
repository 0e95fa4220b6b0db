"""What a demo shows: a live table on a terminal, calm lines elsewhere, and the report at the end."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

_KEPT_EVENTS = 8
_PLAIN_EVERY_SECS = 10.0


@dataclass(frozen=True)
class Snapshot:
    """The state of a demo at one moment. Rates are rows per second over the last few seconds.

    `stored_rows`, `episodes` and `faults_found` are what lies in storage, not what somebody claims to have sent there.
    """

    elapsed_secs: float = 0.0
    phase: str = ""
    devices: int = 0
    sent_rows: int = 0
    planned_rows: int = 0
    sent_rate: float = 0.0
    scored_rate: float = 0.0
    hub_messages: int = 0
    spooled_rows: int = 0
    stored_rows: int = 0
    blobs: int = 0
    episodes: int = 0
    faults_found: int = 0
    faults_injected: int = 0
    storage: str = "reachable"
    modules: tuple[tuple[str, str], ...] = ()


class Screen(Protocol):
    def update(self, snapshot: Snapshot) -> None: ...

    def event(self, elapsed_secs: float, text: str) -> None: ...


def clock(secs: float) -> str:
    return f"{int(secs) // 60}:{int(secs) % 60:02}"


class PlainScreen:
    """A line for each event, and one for the numbers every ten seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._due = 0.0

    def update(self, snapshot: Snapshot) -> None:
        if snapshot.elapsed_secs < self._due:
            return
        self._due = snapshot.elapsed_secs + _PLAIN_EVERY_SECS
        self._say(snapshot.elapsed_secs, plain_line(snapshot))

    def event(self, elapsed_secs: float, text: str) -> None:
        self._say(elapsed_secs, text)

    def _say(self, elapsed_secs: float, text: str) -> None:
        self._console.print(f"{clock(elapsed_secs):>5}  {text}", highlight=False, soft_wrap=True, markup=False)


def plain_line(now: Snapshot) -> str:
    faults = f" ({now.faults_found} of {now.faults_injected} faults)" if now.faults_injected else ""
    return (
        f"sent {now.sent_rows:,} of {now.planned_rows:,} ({now.sent_rate:.0f}/s), scored {now.scored_rate:.0f}/s, "
        f"waiting {now.hub_messages:,} messages and {now.spooled_rows:,} rows, "
        f"stored {now.stored_rows:,} in {now.blobs:,} blobs, {now.episodes:,} episodes{faults}"
    )


class LiveScreen:
    def __init__(self, live: Live, title: str) -> None:
        self._live = live
        self._title = title
        self._events: deque[tuple[float, str]] = deque(maxlen=_KEPT_EVENTS)
        self._snapshot = Snapshot()

    def update(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._live.update(self._render())

    def event(self, elapsed_secs: float, text: str) -> None:
        self._events.append((elapsed_secs, text))
        self._live.update(self._render())

    def _render(self) -> RenderableType:
        now = self._snapshot
        header = Text.assemble((f"{clock(now.elapsed_secs)}  ", "bold"), (now.phase, "cyan"), f"   {self._title}")
        events = Table.grid(padding=(0, 1))
        for secs, text in self._events:
            events.add_row(Text(clock(secs), style="dim"), Text(text, style="dim"))
        return Group(header, _numbers(now), events)


def _numbers(now: Snapshot) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2))
    states = dict(now.modules)
    faults = f"{now.faults_found} of {now.faults_injected} injected faults found" if now.faults_injected else ""
    rows = [
        (
            "devices",
            f"{now.sent_rows:,} of {now.planned_rows:,} rows sent",
            f"{now.sent_rate:.0f}/s",
            f"{now.devices} up",
        ),
        ("edgeHub", f"{now.hub_messages:,} messages waiting", "", ""),
        ("scorer", "rows scored", f"{now.scored_rate:.0f}/s", states.get("scorer", "")),
        ("anomaly_router", f"{now.episodes:,} episodes in storage", faults, states.get("anomaly_router", "")),
        ("uploader", f"{now.spooled_rows:,} rows in its spool", "", states.get("uploader", "")),
        ("storage", f"{now.stored_rows:,} rows stored", f"{now.blobs:,} blobs", now.storage),
    ]
    for name, *cells in rows:
        trouble = not cells[-1].endswith(("up", "reachable"))
        table.add_row(Text(name, style="bold"), *cells[:-1], Text(cells[-1], style="yellow" if trouble else "green"))
    return table


@contextmanager
def open_screen(console: Console, title: str) -> Iterator[Screen]:
    if not console.is_terminal:
        yield PlainScreen(console)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield LiveScreen(live, title)
