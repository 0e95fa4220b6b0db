"""How long these tests wait: whole sites start and stop meanwhile."""

from functools import partial

from tests import waiting

until = partial(waiting.until, secs=20.0)
