"""What the judge of a cell is shown: what was read back of its devices, and every request that wrote to storage."""

import asyncio
import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from policy import compile_policy
from simulator.fault_proxy import Exchange
from simulator.folders import read_bundle
from simulator.judgement import judge_run
from simulator.ledger import Ledger
from simulator.links import STORAGE
from simulator.local_site import LocalSite
from simulator.oracle import Verdict
from tests.chaos.reading import Reader
from tests.chaos.sites import CLOSE_ALL
from tests.e2e.pipeline import POLICY, settle

_CLOSING_SECS: Final = 20.0
_LOOK_SECS: Final = 0.25
# In which what was sent twice would have come twice: edgeHub sends again what is not acknowledged after one second.
_QUIET_SECS: Final = 2.0


class Evidence:
    """Of one site, over all its cells. Make it before anything is sent."""

    def __init__(self, site: LocalSite, bundle: Path) -> None:
        self._bundle = read_bundle(bundle)
        self._policy = POLICY.read_text(encoding="utf-8")
        self._policy_hash = compile_policy(self._policy).hash
        self._reader = Reader(site)
        self._writes: list[Exchange] = []
        self._site = site
        self._last: Ledger | None = None
        site.links[STORAGE].http.observe = self._take

    def begin(self, prefix: str) -> None:
        """The cell's devices are those whose names begin so."""
        self._reader.begin(prefix)

    async def look(self) -> None:
        await self._reader.look()

    def has_fresh_rows(self, ledger: Ledger, devices: Iterable[str], since: float) -> bool:
        """Whether each of the devices has a message in storage that was promised, and first tried after `since`."""
        stored = {(str(row.get("device")), str(row.get("message"))) for row in self._reader.storage.lane("readings")}
        fresh = {
            one.device
            for one in ledger.sent()
            if one.is_promised and one.began_at > since and (one.device, one.message.message_id) in stored
        }
        return fresh >= set(devices)

    def judge(self, ledger: Ledger, faults_ended_at: float | None) -> Verdict:
        """Of the cell's devices; the chain of batches and the writes are those of the site's whole life."""
        self._last = ledger
        return self._judge(ledger, faults_ended_at)

    async def finish(self) -> list[str]:
        """Of a healthy site on which nothing is sent any more: close what is open, look once more; a line per problem.

        The last cell is judged again, so a late duplicate of its rows shows, too. Raises as `settle` and `look` do.
        """
        await self._site.set_desired("anomaly_router", CLOSE_ALL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING_SECS):
                while not await self._is_all_closed():  # noqa: ASYNC110 - storage is asked
                    await asyncio.sleep(_LOOK_SECS)
        await asyncio.sleep(_QUIET_SECS)
        await settle(self._site)
        await self.look()
        verdict = Verdict() if self._last is None else self._judge(self._last, None, at_end=True)
        return verdict.problems

    async def _is_all_closed(self) -> bool:
        await settle(self._site)
        await self.look()
        return self._reader.is_all_closed()

    def _judge(self, ledger: Ledger, faults_ended_at: float | None, *, at_end: bool = False) -> Verdict:
        verdict = judge_run(
            ledger,
            self._reader.storage,
            self._bundle,
            self._policy,
            policy_hash=self._policy_hash,
            faults_ended_at=faults_ended_at,
            writes=self._writes,
            chain=False,
        )
        verdict.values_differ += verdict.note_all(self._reader.problems(at_end=at_end))
        return verdict

    def _take(self, exchange: Exchange) -> None:
        if exchange.request.method not in ("GET", "HEAD"):
            self._writes.append(exchange)
