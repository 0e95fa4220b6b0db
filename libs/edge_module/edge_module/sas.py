"""SAS tokens, exactly as the device SDK builds them: ids are not encoded one by one, the whole audience is."""

import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable
from urllib.parse import quote

Sign = Callable[[bytes], bytes]  # HMAC-SHA256 under the module's key


def make_token(sign: Sign, resource: str, expiry: int) -> str:
    """A token for `host/devices/d/modules/m` that ends at `expiry` (seconds since 1970)."""
    audience = quote(resource, safe="")
    signature = b64encode(sign(f"{audience}\n{expiry}".encode())).decode()
    return f"SharedAccessSignature sr={audience}&sig={quote(signature, safe='')}&se={expiry}"


def key_signer(key_base64: str) -> Sign:
    """Sign with a key that is at hand (a connection string's). Raises ValueError when it is not base64."""
    key = b64decode(key_base64, validate=True)
    return lambda data: hmac.digest(key, data, "sha256")
