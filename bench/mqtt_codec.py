"""aMQTT's packet classes beside the runtime's own codec: one QoS 1 PUBLISH of 300 bytes and its PUBACK, in and out.

Run it with an interpreter that can import both, for example from a virtual environment with `amqtt` installed and
`PYTHONPATH=simulator`. Prints the medians in microseconds per pair of packets and their ratio; without aMQTT it says
so and measures our codec alone. The decision that rests on it is `docs/decisions/0001-mqtt-codec.md`.
"""

import asyncio
import importlib.util
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

from simulator.runtime.codec import Parser, Puback, Publish, encode

ROUNDS = 15
PAIRS_PER_ROUND = 5_000
TOPIC = "devices/edge-1/modules/scorer/messages/events/%24.on=scores&%24.ct=application%2Fjson&%24.ce=utf-8"
STREAM = encode(Publish(TOPIC, b"x" * 300, 1, 7)) + encode(Puback(7))


async def own_pairs(count: int) -> None:
    parser = Parser()
    for _ in range(count):
        publish, puback = parser.feed(STREAM)
        encode(publish)
        encode(puback)


async def amqtt_pairs(count: int) -> None:
    from amqtt.mqtt.packet import MQTTFixedHeader
    from amqtt.mqtt.puback import PubackPacket
    from amqtt.mqtt.publish import PublishPacket

    reader = asyncio.StreamReader()
    for _ in range(count):
        reader.feed_data(STREAM)
        for packet_type in (PublishPacket, PubackPacket):
            header = await MQTTFixedHeader.from_stream(reader)
            packet = await packet_type.from_stream(reader, fixed_header=header)
            packet.to_bytes()


def median_us(work: Callable[[int], Awaitable[None]]) -> float:
    """Median over the rounds of the microseconds that one pair took."""

    async def measure() -> float:
        started = time.perf_counter()
        await work(PAIRS_PER_ROUND)
        return (time.perf_counter() - started) / PAIRS_PER_ROUND * 1e6

    asyncio.run(measure())
    return statistics.median(asyncio.run(measure()) for _ in range(ROUNDS))


def main() -> int:
    own = median_us(own_pairs)
    sys.stdout.write(f"own codec: {own:.1f} us per PUBLISH and PUBACK, decoded and encoded\n")
    if importlib.util.find_spec("amqtt") is None:
        sys.stdout.write("aMQTT: skipped, it is not installed here (pip install amqtt in an environment of its own)\n")
        return 0
    amqtt = median_us(amqtt_pairs)
    sys.stdout.write(f"aMQTT:     {amqtt:.1f} us; ratio {amqtt / own:.1f}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
