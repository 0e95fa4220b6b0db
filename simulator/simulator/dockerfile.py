"""What a Dockerfile says about running its image: the command and the environment of its last stage.

The simulator starts modules as processes, so the Dockerfile stays the only place that says how. Only the exec form of
ENTRYPOINT and CMD is taken: the shell form puts a shell between the runtime's signals and the module.
"""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from simulator.errors import UserError

_INSTRUCTION = re.compile(r"\s*([A-Za-z]+)\s+(.*)", re.DOTALL)


@dataclass(frozen=True)
class Image:
    command: tuple[str, ...]
    env: dict[str, str]


def read_image(path: Path) -> Image:
    """Raises UserError when the file is missing or its last stage has no exec-form command."""
    try:
        return parse_image(path.read_text(encoding="utf-8"), name=str(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; module.json names this Dockerfile") from None


def parse_image(text: str, *, name: str = "Dockerfile") -> Image:
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: dict[str, str] = {}
    for instruction, argument in _instructions(text):
        if instruction == "FROM":
            entrypoint, command, env = (), (), {}
        elif instruction == "ENTRYPOINT":
            # A base image's or an earlier CMD does not survive a new ENTRYPOINT.
            entrypoint, command = _exec_form(argument, f"{name}: ENTRYPOINT"), ()
        elif instruction == "CMD":
            command = _exec_form(argument, f"{name}: CMD")
        elif instruction == "ENV":
            env.update(_assignments(argument, name))
    if not entrypoint + command:
        raise UserError(f"{name}: its last stage has neither ENTRYPOINT nor CMD, so there is nothing to start")
    return Image(entrypoint + command, env)


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    """Instructions with their continuation lines joined; comment lines are dropped even between continuations."""
    pending = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#") or (pending == "" and not line.strip()):
            continue
        pending += line.rstrip()
        if pending.endswith("\\"):
            pending = pending[:-1] + " "
            continue
        if match := _INSTRUCTION.fullmatch(pending):
            yield match[1].upper(), match[2].strip()
        pending = ""


def _exec_form(argument: str, where: str) -> tuple[str, ...]:
    try:
        words = json.loads(argument)
    except json.JSONDecodeError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UserError(f"{where} is in shell form; write it as a JSON array, so that signals reach the module")
    return tuple(words)


def _assignments(argument: str, name: str) -> dict[str, str]:
    words = shlex.split(argument)
    if words and "=" not in words[0]:  # the old form, ENV KEY value with spaces
        return {words[0]: " ".join(words[1:])}
    for word in words:
        if "=" not in word:
            raise UserError(f"{name}: ENV {word} has no value")
    return dict(word.split("=", 1) for word in words)
