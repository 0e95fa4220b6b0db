"""The policy in force, and the file that it comes from.

Promises
- A policy is taken whole or not at all; while the file cannot be taken, the policy before it stays in force.
- A policy that the pin (`policy_sha256`) does not name is never in force, however it was found.
- The text of the policy in force is kept in the store, so a restart beside a damaged file goes on with it.
- A file that nobody pinned is taken only after it has stood unchanged for one look (about a second): half of a policy
  may be a valid policy that lets out more.
"""

from pathlib import Path
from typing import NamedTuple

import msgspec

from policy import Policy, PolicyError, compile_policy

READ_LIMIT_BYTES = 256 * 1024 + 1


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why the file is not in force: a code of policy.CODES, `not_found`, `unreadable` or `not_pinned`."""

    code: str
    detail: str
    place: str = ""
    line: int | None = None

    @property
    def text(self) -> str:
        where = f" at {self.place}" if self.place else ""
        return f"{self.code}{where}{f' (line {self.line})' if self.line is not None else ''}: {self.detail}"


class _Stamp(NamedTuple):
    """Tells one state of the file from another without reading it."""

    mtime_ns: int
    ctime_ns: int
    size: int
    inode: int


class PolicyFile:
    def __init__(self, path: Path, pin: str | None, saved: bytes | None) -> None:
        """`saved` is the text that the store kept. The file itself is taken at once, without waiting for a second look:
        there is no policy before it to go on with unless the store has one."""
        self.policy: Policy | None = None
        self.problem: Problem | None = None
        self.text: bytes | None = None
        self._path = path
        self._pin = _normalised(pin)
        self._taken: _Stamp | None = None
        self._seen: _Stamp | None = None
        if saved is not None:
            self._take(saved)
        self.look(at_once=self.policy is None)

    def configure(self, path: Path, pin: str | None) -> None:
        """Take a new path or pin. What was in force and is not what the pin names is in force no longer."""
        self._path, self._pin = path, _normalised(pin)
        if self.policy is not None and not self._is_pinned(self.policy):
            self.policy = self.text = None
        self._taken = None
        self.look(at_once=self.policy is None)

    def look(self, *, at_once: bool = False) -> None:
        """Read the file again if it has changed."""
        try:
            stamp = _stamp(self._path)
            if stamp == self._taken:
                return
            settled = at_once or self._pin is not None or stamp == self._seen
            self._seen = stamp
            if not settled:
                return
            with self._path.open("rb") as file:
                text = file.read(READ_LIMIT_BYTES)
            if _stamp(self._path) != stamp:
                return
        except FileNotFoundError:
            self._taken = None
            self.problem = Problem("not_found", f"no file {self._path.name} in the configuration folder")
            return
        except OSError as error:
            self._taken = None
            self.problem = Problem("unreadable", error.strerror or type(error).__name__)
            return
        self._taken = stamp
        self.problem = self._take(text)

    def _take(self, text: bytes) -> Problem | None:
        try:
            policy = compile_policy(text)
        except PolicyError as error:
            return Problem(error.code, error.detail, error.path, error.line)
        if not self._is_pinned(policy):
            return Problem(
                "not_pinned", f"the setting policy_sha256 asks for {self._pin}, this policy is {policy.hash}"
            )
        if self.policy is None or self.policy.hash != policy.hash:
            self.policy, self.text = policy, text
        return None

    def _is_pinned(self, policy: Policy) -> bool:
        return self._pin is None or policy.hash == self._pin


def _normalised(pin: str | None) -> str | None:
    return pin if pin is None or pin.startswith("sha256:") else f"sha256:{pin}"


def _stamp(path: Path) -> _Stamp:
    stat = path.stat()
    return _Stamp(stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)
