"""Policy text to plain data with line numbers.

YAML is read as its author sees it: no tags of any language, no merge keys, no key twice in one mapping. A policy is a
page of text, so a document that grows when its aliases are followed is refused rather than expanded.
"""

from typing import Final, NoReturn

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from policy.errors import PolicyError

TEXT_LIMIT_BYTES: Final = 256 * 1024
DEPTH_LIMIT: Final = 8
NODE_LIMIT: Final = 20_000
_PLAIN_TAGS: Final = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")

Scalar = str | int | float | bool | None
Plain = Scalar | list["Plain"] | dict[str, "Plain"]
Path = tuple[str | int, ...]


def path_text(path: Path) -> str:
    return "/".join(str(step) for step in path)


class Document:
    """The plain data, and the line on which each part of it stands."""

    def __init__(self, text: str | bytes) -> None:
        """Raises PolicyError: `not_yaml`, `too_large`, `duplicate_key` or `bad_value`."""
        self._lines: dict[Path, int] = {}
        self._nodes = 0
        self._scalars = yaml.SafeLoader("")
        self.root = self._plain(_compose(text), ())

    def refuse(self, code: str, path: Path, detail: str) -> NoReturn:
        line = next((self._lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self._lines), None)
        raise PolicyError(code, path_text(path), detail, line=line)

    def _plain(self, node: Node, path: Path) -> Plain:
        self._lines[path] = node.start_mark.line + 1
        self._nodes += 1
        if self._nodes > NODE_LIMIT or len(path) > DEPTH_LIMIT:
            self.refuse("too_large", path, "too many or too deeply nested parts (aliases count each time)")
        if not isinstance(node, ScalarNode) and node.tag not in _PLAIN_TAGS:
            self.refuse("not_yaml", path, f"the tag {node.tag[:80]} is not accepted")
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self._plain(child, (*path, n)) for n, child in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Plain]:
        result: dict[str, Plain] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                self.refuse("not_yaml", path, "keys are plain names; merge keys (<<) are not accepted")
            key: str = key_node.value
            if key in result:
                self._lines[(*path, key)] = key_node.start_mark.line + 1
                self.refuse("duplicate_key", (*path, key), f"{key[:80]!r} stands twice in this mapping")
            result[key] = self._plain(value_node, (*path, key))
        return result

    def _scalar(self, node: Node, path: Path) -> Scalar:
        try:
            value = self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            self.refuse("not_yaml", path, str(error).split("\n", 1)[0])
        if value is None or isinstance(value, str | int | float):
            return value
        # A bare 2026-11-23 is a date to YAML; no value of this format is one.
        return self.refuse("bad_value", path, f"put this text in quotes: {str(node.value)[:80]}")


def _compose(text: str | bytes) -> Node:
    if len(text) > TEXT_LIMIT_BYTES:
        raise PolicyError("too_large", "", f"{len(text)} bytes; at most {TEXT_LIMIT_BYTES}")
    try:
        content = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        node = yaml.compose(content, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise PolicyError("not_yaml", "", f"not UTF-8 at byte {error.start}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark is not None else None
        raise PolicyError("not_yaml", "", error.problem or "not YAML", line=line) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise PolicyError("not_yaml", "", str(error).split("\n", 1)[0] or "nested too deeply") from None
    if node is None:
        raise PolicyError("not_yaml", "", "the document is empty")
    return node
