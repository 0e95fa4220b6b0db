"""Who may connect: CONNECT to return code, and the same token again later."""

import logging
import time
from dataclasses import dataclass

from simulator.runtime.codec import Connect, ReturnCode
from simulator.runtime.identities import Identity, Registry
from simulator.runtime.sas import EXPIRY_GRACE_SECS, BadToken, SasToken, check_token, parse_token
from simulator.runtime.timing import Pace
from simulator.runtime.usernames import BadUsername, Username, parse_username

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    code: ReturnCode
    username: Username | None = None
    token: SasToken | None = None


class Authenticator:
    """Judges by the registry as it is at the moment of asking."""

    def __init__(self, registry: Registry, hosts: tuple[str, ...], pace: Pace) -> None:
        self._registry = registry
        self._hosts = hosts
        self._grace_secs = pace(EXPIRY_GRACE_SECS)

    def judge(self, connect: Connect) -> Verdict:
        """1 for another protocol, 3 for a user name that cannot be read, 5 for everything else that is wrong."""
        if connect.protocol != "MQTT" or connect.level != 4:
            return Verdict(ReturnCode.UNACCEPTABLE_PROTOCOL)
        try:
            username = parse_username(connect.username or "")
        except BadUsername as error:
            _LOG.info("CONNECT of %r: user name: %s", connect.client_id, error)
            return Verdict(ReturnCode.SERVER_UNAVAILABLE)
        try:
            return Verdict(ReturnCode.ACCEPTED, username, self._check(connect, username))
        except BadToken as error:
            _LOG.info("CONNECT of %r refused: %s", connect.client_id, error)
            return Verdict(ReturnCode.NOT_AUTHORIZED)

    def _check(self, connect: Connect, username: Username) -> SasToken:
        if connect.client_id != username.client_id:
            raise BadToken("the client id differs from the user name")
        if not connect.password:
            raise BadToken("no password")
        try:
            text = connect.password.decode()
        except UnicodeDecodeError:
            raise BadToken("the password is not text") from None
        token = parse_token(text)
        self.check(username, token)
        return token

    def check(self, username: Username, token: SasToken) -> None:
        """Raises BadToken when the token is not, or no longer, good for the identity."""
        check_token(
            token,
            keys=self._keys(username),
            hosts=self._hosts,
            device=username.device,
            module=username.module,
            now=time.time(),
            grace_secs=self._grace_secs,
        )

    def _keys(self, username: Username) -> tuple[bytes, ...]:
        """The identity's own keys, and for a module its device's keys too."""
        own = self._enabled(self._registry.get(username.device, username.module))
        if not username.module:
            return own.keys
        parent = self._registry.get(username.device)
        return own.keys + (parent.keys if parent is not None and parent.enabled else ())

    @staticmethod
    def _enabled(identity: Identity | None) -> Identity:
        if identity is None:
            raise BadToken("unknown identity")
        if not identity.enabled:
            raise BadToken("the identity is disabled")
        return identity
