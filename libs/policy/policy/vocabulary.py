"""The words of the format."""

from typing import Final, Literal, TypeAlias, get_args

from contract.lanes import LANES, SITE_ONLY, Lane

FORMAT: Final = 1

FieldClass: TypeAlias = Literal["public", "operational", "personal", "secret"]
Transform: TypeAlias = Literal["keep", "drop", "round"]
CLASSES: Final[tuple[FieldClass, ...]] = get_args(FieldClass)
TRANSFORMS: Final[tuple[Transform, ...]] = get_args(Transform)
# Known to the format's design and refused until they are enforced: a rule that is read and ignored is worse than none.
LATER_TRANSFORMS: Final = ("mask", "bucket", "truncate_time", "pseudonymize")
LATER_LANE_KEYS: Final = ("region", "regions", "retention_days", "min_group_size", "destinations")

# The lanes that a policy can open; `rejected` is never policy's to open.
OPEN_LANES: Final[tuple[Lane, ...]] = tuple(lane for lane in LANES if lane not in SITE_ONLY)
DECIMALS: Final = range(-9, 13)
