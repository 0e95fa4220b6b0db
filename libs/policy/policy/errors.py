"""PolicyError: why a policy document was refused, and where."""

from typing import Final

# Every code a PolicyError can carry, with what its author should do.
CODES: Final[dict[str, str]] = {
    "not_yaml": "the text is not UTF-8 YAML that this reader accepts; correct it at the line named",
    "too_large": "the document exceeds 256 KiB, 8 levels or 20,000 nodes; shorten it",
    "duplicate_key": "a key stands twice in one mapping; remove one of the two",
    "unknown_key": "this format has no such key; check its spelling",
    "missing_key": "a key that must be there is absent; add it",
    "bad_value": "the value has the wrong type or is out of bounds",
    "bad_path": "the path is not a pattern of this format",
    "unsupported": "this version cannot enforce it, so it refuses it; remove it or update the module",
    "unknown_lane": "the lane is not declared under `lanes`, or no policy may open it",
    "secret_released": "a field of class secret can only be dropped",
    "conflicting_rules": "two rules claim the same path; keep one",
    "keys_not_released": "a path lets values out through a wildcard whose keys may not leave; add a rule to `keys`",
}


class PolicyError(Exception):
    """The document is refused whole: nothing of it takes effect.

    `path` is the place in the document (`fields/3/transform`), `line` counts from 1 where it is known.
    """

    def __init__(self, code: str, path: str, detail: str, *, line: int | None = None) -> None:
        where = f"{path or 'document'}" + (f" (line {line})" if line is not None else "")
        super().__init__(f"{code} at {where}: {detail}")
        self.code = code
        self.path = path
        self.detail = detail
        self.line = line
