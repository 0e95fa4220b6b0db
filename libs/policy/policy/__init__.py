"""The compliance policy: compile, apply, explain. No I/O.

A policy is default deny: a field that no rule names does not leave. `docs/policy.md` says how to write one.
"""

from policy.errors import CODES, PolicyError
from policy.explain import FieldDecision
from policy.lane import LARGEST_AGGREGATED, LanePolicy, NumericField
from policy.plan import NotAnObject, members
from policy.policy import Policy, compile_policy

__all__ = [
    "CODES",
    "LARGEST_AGGREGATED",
    "FieldDecision",
    "LanePolicy",
    "NotAnObject",
    "NumericField",
    "Policy",
    "PolicyError",
    "compile_policy",
    "members",
]
