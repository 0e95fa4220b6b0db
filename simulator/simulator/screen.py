"""What a demo shows: a live table on a terminal, calm lines elsewhere, and the report at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

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
    highest_score: float = 0.0
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
    """What happened scrolls by and stays; below it a table of always the same size, 80 columns wide."""

    def __init__(self, live: Live, title: str) -> None:
        self._live = live
        self._title = title

    def update(self, snapshot: Snapshot) -> None:
        self._live.update(self._render(snapshot))

    def event(self, elapsed_secs: float, text: str) -> None:
        line = Text.assemble((f"{clock(elapsed_secs):>5}  ", "bold"), text)
        self._live.console.print(line, no_wrap=True, overflow="ellipsis", crop=True)

    def _render(self, now: Snapshot) -> RenderableType:
        header = Text(f"{clock(now.elapsed_secs):>5}  {now.phase or 'starting'}", no_wrap=True, overflow="ellipsis")
        return Group("", Text(self._title, style="bold"), header, _numbers(now))


def _numbers(now: Snapshot) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 1, 0, 0))
    for width in (14, 26, 18, 19):
        table.add_column(width=width, no_wrap=True, overflow="ellipsis")
    states = dict(now.modules)
    faults = f"{now.faults_found} of {now.faults_injected} faults" if now.faults_injected else ""
    rows = [
        (
            "devices",
            f"{now.sent_rows:,} of {now.planned_rows:,} rows sent",
            f"{now.sent_rate:.0f}/s",
            f"{now.devices} up",
        ),
        ("edgeHub", f"{now.hub_messages:,} messages waiting", "", ""),
        ("scorer", f"highest score {now.highest_score:.4g}", f"{now.scored_rate:.0f}/s", states.get("scorer", "")),
        ("anomaly_router", f"{now.episodes:,} episodes stored", faults, states.get("anomaly_router", "")),
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
