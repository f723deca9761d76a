"""Text to plain values and back: YAML with the core schema of YAML 1.2, and JSON with comments.

YAML 1.1, which PyYAML follows, makes booleans of `on` and `no`, and seconds of `1:30`; the core schema does not. Keys
stay the text that they are. A key that a mapping has twice is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from ..errors import ConfigError
from .problems import render

MAX_DEPTH = 100
MAX_VALUES = 100_000

_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NULL = re.compile(r"~|null|Null|NULL|")
_RESOLVERS = [
    (f"tag:yaml.org,2002:{tag}", re.compile(rf"(?:{pattern.pattern})\Z"))
    for tag, pattern in (("null", _NULL), ("bool", _BOOL), ("int", _INT), ("float", _FLOAT))
] + [("tag:yaml.org,2002:merge", re.compile(r"<<\Z"))]
_JSON_TOKEN = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING_COMMA = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])', re.DOTALL)


def read_document(text: str, name: str) -> Any:
    """The plain values in a text: JSON if `name` ends so or the text is in braces, else YAML.

    Raises:
        ConfigError: the text is malformed or has a key twice; the lines say where.
    """
    stem, _, extension = name.lower().rpartition(".")
    yaml_expected = bool(stem) and extension in ("yaml", "yml")
    plain = _JSON_TOKEN.sub(_keep_strings, text)
    try:
        if (bool(stem) and extension in ("json", "jsonc")) or (not yaml_expected and plain.lstrip().startswith("{")):
            return _bounded(_read_json(_TRAILING_COMMA.sub(_keep_strings, plain)))
        return _bounded(_read_yaml(text))
    except ConfigError as error:
        raise ConfigError([f"{problem} (in {name})" for problem in error.problems]) from None
    except RecursionError:
        raise ConfigError([f"top level: nested too deeply (in {name})"]) from None


def to_yaml(document: Mapping[str, Any], *, comments: Iterable[str] = ()) -> str:
    """A document in our own schema as YAML, in the given order, with comment lines above it.

    Placeholders stay as they are. Reading it back gives equal values.
    """
    head = "".join(f"# {line}\n" for line in comments)
    body = _dump(document, allow_unicode=True)
    if re.search("[\x85\u2028\u2029]", body):  # line breaks, of which PyYAML does not take care
        body = _dump(document, allow_unicode=False)
    return head + body


def _dump(document: Mapping[str, Any], *, allow_unicode: bool) -> str:
    return str(yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, allow_unicode=allow_unicode, width=120))


def _bounded(document: Any) -> Any:
    """The document, unless it is too deep or too large to walk over, as one with an alias in its own anchor is."""
    number = 0
    waiting = [(document, 0)]
    while waiting:
        value, depth = waiting.pop()
        number += 1
        if depth > MAX_DEPTH or number > MAX_VALUES:
            raise ConfigError(["top level: nested too deeply" if depth > MAX_DEPTH else "top level: too many values"])
        if isinstance(value, dict | list):
            waiting.extend((item, depth + 1) for item in (value.values() if isinstance(value, dict) else value))
    return document


def _keep_strings(token: re.Match[str]) -> str:
    """A string as it is; anything else as spaces, so that positions in error messages stay right."""
    return token[1] or re.sub(r"[^\n]", " ", token[0])


# --- JSON -------------------------------------------------------------------------------------------------------------


def _read_json(text: str) -> Any:
    twice: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                twice.append(f"{render((key,))}: the key is there twice in one mapping")
            result[key] = value
        return result

    def refuse(constant: str) -> None:
        raise ConfigError([f"top level: {constant} is not JSON"])

    try:
        value = json.loads(text, object_pairs_hook=collect, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise ConfigError([f"line {error.lineno}, column {error.colno}: {error.msg}"]) from None
    if twice:
        raise ConfigError(twice)
    return value


# --- YAML -------------------------------------------------------------------------------------------------------------


class _CoreSchema:
    """What the loader and the dumper must agree on, lest text comes back as a number."""

    yaml_implicit_resolvers = {None: _RESOLVERS}  # noqa: RUF012  (PyYAML's own way of saying this)


class _Loader(_CoreSchema, yaml.SafeLoader):
    """PyYAML's loader for the core schema; collects keys that are there twice."""

    yaml_constructors = {  # noqa: RUF012
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map")
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.twice: list[str] = []

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self.twice.append(f"line {line}: a key must be text, not a list or a mapping")
            elif key.value in lines and key.tag != "tag:yaml.org,2002:merge":
                self.twice.append(f"line {line}: key {key.value!r} is there already, in line {lines[key.value]}")
            else:
                lines[key.value] = line
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node)
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


class _Dumper(_CoreSchema, yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _read_yaml(text: str) -> Any:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if loader.twice:
            raise ConfigError(loader.twice)
        return None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "top level"
        raise ConfigError([f"{where}: {error.problem or error.context}"]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError([f"line {line}: {error.reason}"]) from None
