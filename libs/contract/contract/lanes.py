"""The four lanes that leave the router, each with an uploader input of the same name."""

from typing import Final, Literal, TypeAlias, get_args

Lane: TypeAlias = Literal["anomalies", "insights", "readings", "rejected"]

LANES: Final[tuple[Lane, ...]] = get_args(Lane)
# `rejected` holds what could not be understood, so no policy was applied to it: it never leaves the site.
SITE_ONLY: Final[frozenset[Lane]] = frozenset({"rejected"})
