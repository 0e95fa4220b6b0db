"""Who a message is, so that a repeat of it can be recognised.

An input's identity is (device, module, message id, digest of the body): the same id with another body (firmware that
counts from 1 again after a reboot) is a new message. Without a message id it is (device, module, digest), which is
sound only when the body carries a timestamp; the caller says so. Without either the message has no identity and
stays at-least-once.
"""

from hashlib import blake2b

import msgspec


def body_digest(body: bytes) -> bytes:
    """16 bytes that stand for the body (BLAKE2b, RFC 7693)."""
    return blake2b(body, digest_size=16).digest()


class InputIdentity(msgspec.Struct, frozen=True, order=True):
    device: str
    module: str  # "" for a leaf device
    message_id: str | None
    digest: bytes

    @property
    def key(self) -> bytes:
        """16 bytes, equal for equal identities; the lengths keep ("a", "bc") apart from ("ab", "c")."""
        hasher = blake2b(digest_size=16)
        for part in (self.device, self.module, self.message_id or ""):
            encoded = part.encode()
            hasher.update(len(encoded).to_bytes(4, "big"))
            hasher.update(encoded)
        hasher.update(b"\1" if self.message_id is not None else b"\0")
        hasher.update(self.digest)
        return hasher.digest()


def keyed_id(key: bytes, *parts: bytes) -> str:
    """32 hex characters that reveal nothing about the parts to whoever lacks the key (at most 64 bytes).

    A plain digest of a low-entropy value can be found by trying all values; ids leave the site, so ours are keyed.
    """
    hasher = blake2b(key=key, digest_size=16)
    for part in parts:
        hasher.update(len(part).to_bytes(4, "big"))
        hasher.update(part)
    return hasher.hexdigest()
