"""Storage read back cell by cell. A blob never changes, so each is read once; that it has not changed is checked."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simulator.chain import broken_batches
from simulator.local_site import LocalSite
from simulator.stored import Batch, Storage, list_etags, read_blobs
from tests.chaos.site_life import SiteLife


class Reader:
    """`begin` a cell, `look` as often as wanted; `storage` is what is there of the cell's devices.

    `problems` are about all that was ever read: the chain of batches, blobs that changed or went, rows that were stored
    while another cell's devices were sending, and what goes on after a cell (`tests.chaos.site_life`).
    """

    def __init__(self, site: LocalSite) -> None:
        self.storage = Storage()
        self._site = site
        self._prefix = ""
        self._etags: dict[str, str] = {}
        self._files: dict[str, tuple[int, int]] = {}
        self._batches: list[Batch] = []
        self._said: list[str] = []
        self._life = SiteLife()

    def begin(self, prefix: str) -> None:
        """Rows of devices whose names begin so belong to the cell; all others are out of place from now on."""
        self._prefix = prefix
        self.storage = Storage()

    async def look(self) -> None:
        """Read what is new. Raises the SDK's AzureError while storage is away; nothing is forgotten by that."""
        await asyncio.to_thread(self._look)

    def problems(self, *, at_end: bool = False) -> list[str]:
        """What was found since they were last asked for, and every fault of the chain and of the site's life.

        `at_end` every episode and window must be closed.
        """
        said, self._said = self._said, []
        return [*said, *broken_batches(self._batches), *self._life.problems(at_end=at_end)]

    def is_all_closed(self) -> bool:
        """Whether nothing is left to wait for: every episode is closed, every row counted."""
        return not self._life.problems(at_end=True)

    def _look(self) -> None:
        azurite = self._site.azurite
        assert azurite is not None
        etags = list_etags(azurite.connection_string, self._site.container)
        self._compare(self._etags, etags)
        found = Storage()
        read_blobs(azurite.connection_string, self._site.container, sorted(etags.keys() - self._etags.keys()), found)
        folder = self._site.folder.var("uploader")
        files = dict(_files(folder))
        self._compare(self._files, files)
        for name in sorted(files.keys() - self._files.keys()):
            found.add(name, (folder / name).read_bytes())
        self._etags, self._files = etags, files
        for batch, rows in zip(found.batches, found.rows, strict=True):
            self._take(batch, rows)

    def _compare(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        self._said += [f"{name} was changed" for name in before.keys() & now.keys() if before[name] != now[name]]
        self._said += [f"{name} is gone" for name in before.keys() - now.keys()]

    def _take(self, batch: Batch, rows: list[dict[str, Any]]) -> None:
        self._batches.append(batch)
        self._life.add(batch, rows)
        if batch.name.lane == "insights":
            return
        ours: list[dict[str, Any]] = []
        for row in rows:
            if str(row.get("device")).startswith(self._prefix):
                ours.append(row)
            # Episodes of earlier cells close in their own time; such an event brings no row.
            elif batch.name.lane != "anomalies" or row.get("rows"):
                self._said.append(f"{batch.path} has a row of {row.get('device')}, which is not sending")
        self.storage.batches.append(batch)
        self.storage.rows.append(ours)


def _files(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    for path in folder.glob("rejected/**/*.jsonl.gz"):
        status = path.stat()
        yield path.relative_to(folder).as_posix(), (status.st_size, status.st_mtime_ns)
