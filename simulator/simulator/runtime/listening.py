"""A loopback address of the runtime's own, so that several runtimes can all use the SDK's fixed port."""

import errno
import ipaddress
import random
import socket

from simulator.runtime.config import RuntimeFailed

_ATTEMPTS = 200


def listen_on(address: str, port: int) -> socket.socket:
    """Raises RuntimeFailed, with one line that says what to do, when the address is taken or not ours."""
    try:
        is_loopback = ipaddress.IPv4Address(address).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise RuntimeFailed(f"{address} is no loopback address; choose one in 127.0.0.0/8")
    try:
        return _bound(address, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = "is taken; stop what listens there, or use another state folder (it gets an address of its own)"
        else:
            why = f"cannot be used ({error.strerror}); choose an address in 127.0.0.0/8"
        raise RuntimeFailed(f"{address}:{port} {why}") from None


def listen_anywhere(port: int) -> tuple[str, socket.socket]:
    """A random free address in 127.0.0.0/8 and the socket that listens there."""
    for _ in range(_ATTEMPTS):
        # Not 127.0.0.x: others use those by hand.
        address = f"127.{random.randint(16, 254)}.{random.randint(0, 254)}.{random.randint(1, 254)}"
        try:
            return address, _bound(address, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise RuntimeFailed(
                    f"{address} cannot be used ({error.strerror}); only Linux has all of 127.0.0.0/8 on loopback"
                ) from None
    raise RuntimeFailed(
        f"port {port} is taken on every address in 127.0.0.0/8: something listens on 0.0.0.0:{port}; stop it"
        f" (ss -ltnp 'sport = :{port}' names it)"
    )


def _bound(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(256)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock
