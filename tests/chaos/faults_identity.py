"""Identities, tokens, keys and certificates that change or fail under modules, devices and edgeHub at work."""

import asyncio
import base64
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Final

from simulator.local_site import EDGE_HUB
from simulator.runtime.sas import EXPIRY_GRACE_SECS
from simulator.runtime.timing import TOKEN_CHECK_INTERVAL_SECS
from tests.chaos.arena import MODULES, Arena, Cell, CellFailed
from tests.chaos.faults_process import stopped, terminate, until_connected, until_hub_answers
from tests.chaos.impostor import impostor_of
from tests.chaos.sites import TIME_SCALE
from tests.chaos.vitals import until_it_says
from tests.chaos.workload_fault import WAYS, workload_away

_TTL = "EDGEWEIR_SAS_TTL_SECS"
_CERTIFICATE_SECS = "EDGEWEIR_SERVER_CERTIFICATE_SECS"
_BACK_SECS = 30.0
# edgeHub looks at the tokens of open connections so often, and then at the identities behind them.
_CHECKED_SECS: Final = 2 * TOKEN_CHECK_INTERVAL_SECS / TIME_SCALE


async def evicted(arena: Arena, part: str) -> None:
    """A second client with the module's identity takes over, stays a moment, goes; some times."""
    await take_over(arena, f"{arena.site.info.device_id}/{part}")


async def device_evicted(arena: Arena) -> None:
    """The same to a device that is connected now."""
    device = await connected_device(arena)
    await take_over(arena, device)


async def take_over(arena: Arena, client_id: str) -> None:
    device, _, module = client_id.partition("/")
    for _ in range(arena.rng.randint(3, 5)):
        clean_session, says_goodbye, subscribes = (arena.rng.random() < 0.5 for _ in range(3))
        arena.note(f"{client_id} evicted: {clean_session=} {says_goodbye=} {subscribes=}")
        impostor = await impostor_of(arena.site, client_id, clean_session=clean_session, says_goodbye=says_goodbye)
        async with impostor:
            if subscribes and module:
                impostor.subscribe(f"devices/{device}/modules/{module}/inputs/#")
            await asyncio.sleep(arena.rng.uniform(0.0, 0.5))
        await asyncio.sleep(arena.rng.uniform(0.1, 0.8))


async def tokens_renewed_all_the_time(arena: Arena, part: str) -> None:
    """A token lives for two or three seconds, so that the module takes its own connection over again and again."""
    async with short_tokens(arena, [part], arena.rng.uniform(1.5, 3.0)):
        await renewed(arena, part, times=arena.rng.randint(2, 3))


async def stopped_beyond_expiry(arena: Arena, parts: Sequence[str]) -> None:
    """All of them stopped until their tokens, and edgeHub's grace, are over; edgeHub may have closed them by then."""
    ttl_secs = 2.0
    check_secs = arena.rng.uniform(0.0, 1.0) * TOKEN_CHECK_INTERVAL_SECS / TIME_SCALE
    async with short_tokens(arena, parts, ttl_secs), contextlib.AsyncExitStack() as stack:
        for part in parts:
            stack.enter_context(stopped(arena, part))
        await asyncio.sleep(ttl_secs + 1.0 + EXPIRY_GRACE_SECS / TIME_SCALE + check_secs)


async def disabled(arena: Arena, part: str) -> None:
    """Disabled at the hub: the module loses its connection, says `hub_refused`, and comes back once it may."""
    hub, device = arena.site.control, arena.site.info.device_id
    await hub.set_enabled(device, part, enabled=False)
    try:
        await says(arena, part, "hub_refused")
        await asyncio.sleep(arena.rng.uniform(0.0, 2.0))
    finally:
        await hub.set_enabled(device, part, enabled=True)
    await until_connected(arena, part)


async def device_disabled(arena: Arena) -> None:
    """A device that the hub refuses for a while."""
    device = await connected_device(arena)
    arena.note(f"{device} is disabled")
    await arena.site.control.set_enabled(device, enabled=False)
    try:
        await arena.until_asked(lambda: is_gone(arena, device), f"{device} loses its connection", _CHECKED_SECS)
        await asyncio.sleep(arena.rng.uniform(0.5, 3.0))
    finally:
        await arena.site.control.set_enabled(device, enabled=True)


async def is_gone(arena: Arena, device: str) -> bool:
    return device not in await connected_devices(arena)


async def keys_regenerated(arena: Arena, part: str) -> None:
    """Both keys replaced, two or three times: the connection made with the old one ends, and the new one serves."""
    link = arena.site.links[part]
    accepted = link.accepted
    for _ in range(arena.rng.randint(2, 3)):
        primary, secondary = (base64.b64encode(arena.rng.randbytes(32)).decode() for _ in range(2))
        await arena.site.control.set_keys(arena.site.info.device_id, part, primary=primary, secondary=secondary)
        await asyncio.sleep(arena.rng.uniform(0.2, 1.5))
    await arena.until(lambda: link.accepted > accepted, f"{part} connects with a new key", _CHECKED_SECS)
    await until_connected(arena, part)


async def workload_fails(arena: Arena, part: str, way: str) -> None:
    """The workload API is away while tokens are due; nothing is lost, and renewals go on after it."""
    async with short_tokens(arena, [part], 1.5):
        async with workload_away(arena.site, part, way):
            if way != "hangs":  # then nothing is known for ten seconds
                await says(arena, part, "workload_unreachable")
            await asyncio.sleep(arena.rng.uniform(0.5, 2.0))
        await until_connected(arena, part)
        await renewed(arena, part, times=1)


async def certificate_renewed(arena: Arena) -> None:
    """edgeHub restarts with a new server certificate of the same authority, twice."""
    for _ in range(2):
        before = await certificate_of(arena)
        async with hub_environment(arena, {_CERTIFICATE_SECS: "86400"}):
            await require_another_certificate(arena, before)
            await asyncio.sleep(arena.rng.uniform(0.2, 1.0))


async def certificate_expired(arena: Arena) -> None:
    """The server certificate is over for a while: every module says `hub_untrusted`, none connects."""
    async with hub_environment(arena, {_CERTIFICATE_SECS: "-5"}):
        for part in MODULES:
            await says(arena, part, "hub_untrusted")
        await asyncio.sleep(arena.rng.uniform(0.0, 1.0))


async def authority_replaced(arena: Arena) -> None:
    """edgeHub's certificate comes from an authority that is new, and later from the first one again.

    Modules read the trust bundle again and follow. Devices have the first authority's certificate in their own files:
    they wait until it is back, as real ones wait for somebody to bring them the new one.
    """
    certificates = arena.site.folder.path / "certificates"
    kept = certificates.with_name("certificates.first")
    before = await certificate_of(arena)
    await asyncio.to_thread(certificates.rename, kept)
    try:
        await terminate(arena, EDGE_HUB)
        for part in MODULES:
            await until_connected(arena, part)
        await require_another_certificate(arena, before)
        arena.note("all modules trust the new authority")
        await asyncio.sleep(arena.rng.uniform(0.0, 1.0))
    finally:
        await asyncio.to_thread(shutil.rmtree, certificates, ignore_errors=True)
        await asyncio.to_thread(kept.rename, certificates)
    await terminate(arena, EDGE_HUB)
    await until_hub_answers(arena)


@contextlib.asynccontextmanager
async def short_tokens(arena: Arena, parts: Sequence[str], ttl_secs: float) -> AsyncIterator[None]:
    """The modules restarted with tokens of this life; at the end once more with what they had."""
    async with restarted_with(arena, parts, {_TTL: f"{ttl_secs:.2f}"}):
        for part in parts:
            await until_connected(arena, part)
        yield


@contextlib.asynccontextmanager
async def hub_environment(arena: Arena, extra: dict[str, str]) -> AsyncIterator[None]:
    """edgeHub restarted with this in its environment; at the end once more without."""
    async with restarted_with(arena, [EDGE_HUB], extra):
        await until_hub_answers(arena)
        yield
    await until_hub_answers(arena)


@contextlib.asynccontextmanager
async def restarted_with(arena: Arena, parts: Sequence[str], extra: dict[str, str]) -> AsyncIterator[None]:
    before = {part: arena.site.module_env.get(part, {}) for part in parts}
    for part in parts:
        arena.site.module_env[part] = {**before[part], **extra}
    try:
        await asyncio.gather(*(terminate(arena, part) for part in parts))
        yield
    finally:
        arena.site.module_env.update(before)
        await asyncio.gather(*(terminate(arena, part) for part in parts))


async def renewed(arena: Arena, part: str, *, times: int) -> None:
    """The module's token has been renewed so many times from now on."""
    meter = arena.site.meter(part)

    async def renewals() -> float:
        await meter.read()
        return meter.total(f"edgeweir_{part}_token_renewals_total")

    wanted = await renewals() + times
    async with asyncio.timeout(_BACK_SECS):
        while await renewals() < wanted:  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(0.1)


async def says(arena: Arena, part: str, reason: str) -> None:
    """The module's health names the reason, and the module goes on."""
    await until_it_says(arena.site, part, reason, _BACK_SECS)
    arena.note(f"{part} says {reason}")


async def connected_device(arena: Arena) -> str:
    """One of the cell's devices that are connected now."""
    await arena.until_asked(lambda: connected_devices(arena), "a device is connected")
    return arena.rng.choice(sorted(await connected_devices(arena)))


async def connected_devices(arena: Arena) -> list[str]:
    clients = (await arena.site.control.stats())["clients"]
    return [client for client in clients if "/" not in client and client.startswith(arena.prefix)]


async def certificate_of(arena: Arena) -> str:
    """The one that edgeHub shows now."""
    return await asyncio.to_thread(ssl.get_server_certificate, (arena.site.info.address, arena.site.info.port))


async def require_another_certificate(arena: Arena, before: str) -> None:
    if await certificate_of(arena) == before:
        raise CellFailed(f"{EDGE_HUB} shows the certificate that it had before")


CELLS: Final = (
    *(Cell(part, "evicted by a second client", partial(evicted, part=part)) for part in MODULES),
    Cell("device", "evicted by a second client", device_evicted),
    *(Cell(part, "token renewed all the time", partial(tokens_renewed_all_the_time, part=part)) for part in MODULES),
    Cell("+".join(MODULES), "stopped beyond the life of its token", partial(stopped_beyond_expiry, parts=MODULES)),
    *(Cell(part, "disabled at the hub for a while", partial(disabled, part=part)) for part in MODULES),
    Cell("device", "disabled at the hub for a while", device_disabled),
    *(Cell(part, "both keys regenerated", partial(keys_regenerated, part=part)) for part in MODULES),
    *(
        Cell(part, f"workload API {way} while a token is due", partial(workload_fails, part=part, way=way))
        for part, way in zip(MODULES, WAYS, strict=True)
    ),
    Cell(EDGE_HUB, "server certificate renewed", certificate_renewed),
    Cell(EDGE_HUB, "server certificate expired for a while", certificate_expired),
    Cell(EDGE_HUB, "certificate from a new authority", authority_replaced),
)
