"""What is known about a reading beside its own text, and what of it may leave.

Denied unless the policy names it: who sent it (`device`, `module`, `message`), which machine it is about (`series`),
when (`t`, and with it every time derived from it: an episode's `started`, `last` and `ended`, a window's `t` and
`end`), when edgeHub took it (`enqueued`), and its place in its message (`i`).

Allowed unless the policy drops it: the verdict, which is the declared flow from the model's features to the lanes.
`score` covers `peak_score`, `score_max` and `score_mean` too. `why` names features, so the share of a feature whose
field may not leave in the lane is merged into one entry named `other`, which stands last.

Always there, for they are what the lane is: an event's `kind`, `episode` and `rows_total`, a window's counts, and the
message's `policy`, `site` and `model`. Who must hide these closes the lane.
"""

from typing import Final

import msgspec

from contract.lanes import Lane
from policy.vocabulary import FieldClass

IDENTITY: Final = ("device", "module", "message", "series", "t", "i", "enqueued")
VERDICT: Final = ("score", "threshold", "anomaly", "no_score", "why")
ENVELOPE: Final = IDENTITY + VERDICT
OTHER: Final = "other"


class Transmission(msgspec.Struct, frozen=True):
    """The lanes that carry one part of the envelope, unchanged."""

    field_class: FieldClass
    lanes: frozenset[Lane]

    @staticmethod
    def default(name: str, declared: frozenset[Lane]) -> "Transmission":
        return Transmission("operational", declared if name in VERDICT else frozenset())
