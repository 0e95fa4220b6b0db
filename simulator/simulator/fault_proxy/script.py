"""A schedule as a file, YAML or JSON: a list of steps.

    - {at: 1, add: {type: latency, stream: upstream, attributes: {latency: 500, jitter: 50}}}
    - {at: 5, remove: latency_upstream}
    - {at: 6, lose_response: {method: PUT, nth: 2, then: silent}}

`at` is in seconds from the start. A toxic is written as in toxiproxy's HTTP API (`documents.py`); `down` is one here.
"""

from collections.abc import Iterable
from pathlib import Path

import yaml

from simulator.errors import UserError
from simulator.fault_proxy.documents import BadDocument, read_loss, read_toxic
from simulator.fault_proxy.schedule import Add, Lose, Remove, Step


def read_script(path: Path) -> list[Step]:
    """Raises UserError naming the step that is wrong."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or 'is no text'}") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where is not None else ""
        raise UserError(f"{path}: is neither YAML nor JSON{line}") from None
    if not isinstance(document, list) or not document:
        raise UserError(f"{path}: a script is a list of steps")
    steps: list[Step] = []
    for number, each in enumerate(document, 1):
        try:
            steps.append(read_step(each))
        except BadDocument as error:
            raise UserError(f"{path}: step {number}: {error}") from None
    if wrong := _clash_of_names(steps):
        raise UserError(f"{path}: {wrong}")
    return steps


def read_step(document: object) -> Step:
    """Raises BadDocument."""
    if not isinstance(document, dict) or len(document) != 2 or "at" not in document:
        raise BadDocument("a step has `at` and one of `add`, `remove`, `lose_response`")
    at = document["at"]
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < float("inf"):
        raise BadDocument(f"at is {at!r}; it must be seconds from the start, from 0")
    (what,) = document.keys() - {"at"}
    match what:
        case "add":
            return Add(at, read_toxic(document[what]))
        case "remove" if isinstance(document[what], str):
            return Remove(at, document[what])
        case "lose_response":
            return Lose(at, read_loss(document[what]))
        case _:
            raise BadDocument(f"{what!r} is none of `add: TOXIC`, `remove: NAME`, `lose_response: RULE`")


def _clash_of_names(steps: Iterable[Step]) -> str | None:
    """What would go wrong half-way: a name that is there already, or one that is not."""
    there: set[str] = set()
    for step in sorted(steps, key=lambda step: step.at_secs):
        match step:
            case Add(at, toxic) if toxic.name in there:
                return f"at {at:g}, {toxic.name} is there already; remove it first, or give the new one a name"
            case Add(_, toxic):
                there.add(toxic.name)
            case Remove(at, name) if name not in there:
                return f"at {at:g}, there is no {name} to remove"
            case Remove(_, name):
                there.discard(name)
            case Lose():
                pass
    return None
