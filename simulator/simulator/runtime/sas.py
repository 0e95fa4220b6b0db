"""Shared access signatures: reading, signing and judging a token. Pure; the caller gives keys and the time."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote

EXPIRY_GRACE_SECS = 300.0


class BadToken(Exception):
    """The token is refused; the text says why, for the log only."""


@dataclass(frozen=True, slots=True)
class SasToken:
    resource: str  # still percent-encoded: the signature is over these very characters
    signature: bytes
    expiry: str

    @property
    def expires_at(self) -> float:
        return float(int(self.expiry))


def parse_token(text: str) -> SasToken:
    """`SharedAccessSignature sr=…&sig=…&se=…` with exactly one gap of white space. Raises BadToken."""
    parts = text.split()
    if len(parts) != 2 or parts[0] != "SharedAccessSignature":
        raise BadToken("not of the form 'SharedAccessSignature <fields>'")
    fields = dict(field.partition("=")[::2] for field in parts[1].split("&"))
    missing = [name for name in ("sr", "sig", "se") if not fields.get(name)]
    if missing:
        raise BadToken(f"field {missing[0]} is missing")
    if not fields["se"].isascii() or not fields["se"].isdigit():
        raise BadToken("se is not a number of seconds")
    try:
        signature = base64.b64decode(unquote(fields["sig"]), validate=True)
    except (binascii.Error, ValueError):
        raise BadToken("sig is not base64") from None
    return SasToken(fields["sr"], signature, fields["se"])


def sign(key: bytes, data: str) -> bytes:
    return hmac.digest(key, data.encode(), hashlib.sha256)


def make_token(key: bytes, uri: str, expires_at: int) -> str:
    """A token as the device SDK makes it."""
    resource = quote(uri, safe="")
    signature = base64.b64encode(sign(key, f"{resource}\n{expires_at}")).decode()
    return f"SharedAccessSignature sr={resource}&sig={quote(signature, safe='')}&se={expires_at}"


def check_token(
    token: SasToken,
    *,
    keys: Iterable[bytes],
    hosts: Iterable[str],
    device: str,
    module: str,
    now: float,
    grace_secs: float = EXPIRY_GRACE_SECS,
) -> None:
    """Raises BadToken unless audience, expiry and signature are right for the identity."""
    path = f"/devices/{device}/modules/{module}" if module else f"/devices/{device}"
    if unquote(token.resource).lower() not in {(host + path).lower() for host in hosts}:
        raise BadToken("the audience is another identity or host")
    check_expiry(token, now, grace_secs)
    data = f"{token.resource}\n{token.expiry}"
    if not any(hmac.compare_digest(sign(key, data), token.signature) for key in keys):
        raise BadToken("the signature is wrong")


def check_expiry(token: SasToken, now: float, grace_secs: float = EXPIRY_GRACE_SECS) -> None:
    """Raises BadToken when the token's time, and the grace after it, are over."""
    if now > token.expires_at + grace_secs:
        raise BadToken("the token has expired")
