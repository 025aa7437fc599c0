"""A definition's file as plain JSON, with the line of everything in it.

YAML is read as YAML 1.2 reads JSON's types: only true and false are booleans, only decimal numbers are
numbers. What YAML 1.1 would read in a way that surprises (`on`, `yes`, `1:30`, `010`) is refused instead of
guessed; dates stay texts.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pgsig.errors import InvalidInput, Problem
from pgsig.model import Json

LARGEST = 1 << 20  # bytes of a file
MOST_NODES = 20_000  # values of a document once its aliases are written out
DEEPEST = 100
TAG = "tag:yaml.org,2002:"
SURPRISE = "tag:pgsig,surprise"


@dataclass(frozen=True)
class Source:
    """Where a document came from. name: the file, "" when there is none. lines: line of each JSON pointer.
    problems: what could be read, but not as it stands."""

    name: str = ""
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def knows(self, problem: Problem) -> bool:
        """Whether a problem only follows from one that was found while reading."""
        return any(
            problem.where == known.where or problem.where.startswith(f"{known.where}/")
            for known in self.problems
            if known.where
        )

    def locate(self, problem: Problem) -> Problem:
        """The problem with file and line put in front of its pointer; the line of what is around it where
        it has none.
        """
        pointer = problem.where
        while pointer not in self.lines and pointer:
            pointer = pointer.rpartition("/")[0]
        line = self.lines.get(pointer)
        place = f"{self.name}:{line}" if line else self.name
        return Problem(problem.code, problem.message, f"{place} {problem.where}".strip(), problem.fix)


def escape(key: object) -> str:
    """A key as a segment of a JSON pointer."""
    return str(key).replace("~", "~0").replace("/", "~1")


def read(path: Path) -> tuple[Json, Source]:
    """Read a file: JSON when its name ends in .json, else YAML.

    Raises OSError, and InvalidInput where there is nothing to go on with. What is wrong in single places is
    in the source's `problems`.
    """
    with path.open("rb") as file:
        data = file.read(LARGEST + 1)
    return read_text(data, str(path), is_json=path.suffix == ".json")


def read_text(data: bytes | str, name: str = "", *, is_json: bool = False) -> tuple[Json, Source]:
    """The same for a text that is already there."""
    data = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    source, problems = Source(name), list[Problem]()  # problems: those that end it here
    if len(data) > LARGEST:
        problems.append(Problem("PS520", "a definition has at most 1 MiB", name, "split it into several workflows"))
        raise InvalidInput(problems, subject=name or "the definition")
    document: Json = None
    try:
        text = data.decode("utf-8-sig")
        document = _json(text, source.problems) if is_json else _yaml(text, source)
    except UnicodeDecodeError as error:
        problems.append(
            Problem("PS520", f"not UTF-8: byte {error.start + 1} cannot be read", "", "save the file as UTF-8")
        )
    except json.JSONDecodeError as error:
        problems.append(Problem("PS520", f"not JSON: {error.msg} in line {error.lineno}, column {error.colno}"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problems.append(Problem("PS520", f"not YAML: {error.problem or error.context or 'unreadable'}{place}"))
    except yaml.YAMLError as error:
        problems.append(Problem("PS520", f"not YAML: {' '.join(str(error).split())[:200]}"))
    except RecursionError:
        problems.append(Problem("PS520", f"nested more than {DEEPEST} levels deep"))
    if problems:
        raise InvalidInput([source.locate(problem) for problem in problems], subject=name or "the definition")
    return document, source


def _json(text: str, problems: list[Problem]) -> Json:
    def pairs(items: list[tuple[str, Json]]) -> dict[str, Json]:
        seen: dict[str, Json] = {}
        for key, value in items:
            if key in seen:
                problems.append(Problem("PS521", f'"{key}" is there twice in one object', "", "keep one"))
            seen[key] = value
        return seen

    def constant(name: str) -> Json:
        problems.append(Problem("PS526", f"{name} is not a number that JSON has"))

    return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012  replaced, so that none of YAML 1.1's is inherited


for _tag, _pattern in (
    (f"{TAG}null", r"~|null|Null|NULL|"),
    (f"{TAG}bool", r"true|True|TRUE|false|False|FALSE"),
    (f"{TAG}int", r"-?(?:0|[1-9][0-9]*)"),
    (f"{TAG}float", r"-?(?:0|[1-9][0-9]*)\.[0-9]+(?:[eE][-+][0-9]+)?"),
    (
        SURPRISE,
        # Whatever else some YAML reader takes for a boolean or a number: 010, 0x1f, 1:30, 1_000, 1e3, 1.,
        # .5, +5, .inf
        r"(?i:yes|no|on|off)|[-+]?0[xob][0-9a-fA-F_]+|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"
        r"|[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?i:inf|nan)",
    ),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), None)


def _yaml(text: str, source: Source) -> Json:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
    finally:
        loader.dispose()
    return _Builder(source).value(root, "", 0) if root is not None else None


@dataclass
class _Builder:
    """Plain values from YAML's nodes. What an alias names is built again at each place, and counted."""

    source: Source
    nodes: int = 0
    full: bool = False

    def wrong(self, code: str, message: str, where: str, node: yaml.Node, fix: str = "") -> None:
        self.source.lines.setdefault(where, node.start_mark.line + 1)
        self.source.problems.append(Problem(code, message, where, fix))

    def value(self, node: yaml.Node, where: str, depth: int) -> Any:
        self.source.lines.setdefault(where, node.start_mark.line + 1)
        self.nodes += 1
        if self.nodes > MOST_NODES or depth > DEEPEST:
            if not self.full:
                many = f"more than {MOST_NODES} values" if self.nodes > MOST_NODES else f"more than {DEEPEST} levels"
                self.wrong(
                    "PS526",
                    f"{many}, aliases written out",
                    where,
                    node,
                    "write less; an alias must not contain itself",
                )
            self.full = True
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, where, depth)
        if isinstance(node, yaml.SequenceNode):
            self.refuse_tag(node, f"{TAG}seq", where)
            return [self.value(item, f"{where}/{i}", depth + 1) for i, item in enumerate(node.value) if not self.full]
        return self.scalar(node, where)

    def mapping(self, node: yaml.MappingNode, where: str, depth: int) -> dict[str, Any]:
        self.refuse_tag(node, f"{TAG}map", where)
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if self.full:
                break
            key = self.key(key_node, where)
            if key is None:
                continue
            place = f"{where}/{escape(key)}"
            if key in found:
                self.source.lines[place] = key_node.start_mark.line + 1
                self.wrong("PS521", f'"{key}" is there twice', place, key_node, "keep one, or make a list of both")
                continue
            self.source.lines[place] = key_node.start_mark.line + 1
            found[key] = self.value(value_node, place, depth + 1)
        return found

    def key(self, node: yaml.Node, where: str) -> str | None:
        text = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
        where = f"{where}/{escape(text)}"
        if text == "<<" and isinstance(node, yaml.ScalarNode) and node.style is None:
            self.wrong("PS526", "merge keys (<<) are not read", where, node, "write the keys out")
        elif isinstance(node, yaml.ScalarNode) and node.tag == f"{TAG}str":
            return text
        elif isinstance(node, yaml.ScalarNode) and node.tag == SURPRISE:
            self.wrong(
                "PS526",
                f"the key {text} is true, false or a number to many YAML readers",
                where,
                node,
                f'write "{text}": with quotes',
            )
        else:
            said = f"{text or 'null'} " if isinstance(node, yaml.ScalarNode) else ""
            self.wrong(
                "PS526",
                f"a key is a text, {said}is none",
                where,
                node,
                f'write "{text}": with quotes' if text else "",
            )
        return None

    def scalar(self, node: yaml.Node, where: str) -> Any:
        text = str(node.value)
        match node.tag.removeprefix(TAG):
            case "str":
                return text
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int" if re.fullmatch(r"-?[0-9]{1,400}", text):
                return int(text)
            case "float" if re.fullmatch(r"[-+0-9.eE]{1,400}", text) and math.isfinite(number := float(text)):
                return number
            case "int" | "float":
                self.wrong("PS526", f"{text[:40]} is too large for a number", where, node)
            case _ if node.tag == SURPRISE:
                fix = f'write "{text}" for the text' + (
                    ", true or false for the boolean" if text.isalpha() else ", or a decimal number"
                )
                self.wrong("PS526", f"{text} means different things to different YAML readers", where, node, fix)
            case _:
                self.refuse_tag(node, f"{TAG}str", where)
        return None

    def refuse_tag(self, node: yaml.Node, expected: str, where: str) -> None:
        if node.tag != expected:
            shown = node.tag.replace(TAG, "!!")
            self.wrong("PS526", f"the tag {shown} is not read", where, node, "leave the tag out")
