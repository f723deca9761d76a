"""Plain values to the classes of `schema.py`: a cattrs converter that is strict about types and unknown keys."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from types import GenericAlias
from typing import Any, Literal, TypeVar, get_args, get_origin

import attrs
import cattrs
from cattrs.cols import list_structure_factory
from cattrs.errors import IterableValidationError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn, override

from . import schema, values
from .problems import Problem, Unresolved, Wrong, camel, flatten, kind

T = TypeVar("T")
Hook = Callable[[Any, Any], Any]

_CHECKS: dict[Any, Callable[[object], Any]] = {
    str: values.text,
    bool: values.boolean,
    schema.NonEmpty: values.non_empty,
    schema.BackendName: values.backend_name,
    schema.Url: values.url,
    schema.Argument: values.argument,
    schema.HeaderName: values.header_name,
    schema.HeaderValue: values.header_value,
    schema.VariableName: values.variable_name,
    schema.VariableValue: values.variable_value,
    schema.PrefixFormat: values.prefix_format,
    schema.EndpointPath: values.endpoint_path,
    schema.Origin: values.origin,
    schema.Host: values.host,
    schema.Seconds: values.seconds,
    schema.SecondsOrZero: values.seconds_or_zero,
    schema.Count: values.count,
    schema.Port: values.port,
}


def structure(tree: object, type_: type[T], backends: Collection[str] | None) -> tuple[T | None, list[Problem]]:
    """The object in plain values, or all that is wrong with them.

    Args:
        tree: what the file has, with placeholders expanded.
        type_: one of the classes of `schema.py`.
        backends: the names that a workload may have; None when they are not known.
    """
    try:
        return make_converter(backends).structure(tree, type_), []
    except (cattrs.BaseValidationError, Wrong) as error:
        return None, list(flatten(error))


def make_converter(backends: Collection[str] | None) -> cattrs.Converter:
    """A converter for the classes of `schema.py`. Its errors are for `problems.flatten`."""
    converter = cattrs.Converter(detailed_validation=True, forbid_extra_keys=True)
    for type_, check in _CHECKS.items():
        converter.register_structure_hook(type_, _hook(check))
    converter.register_structure_hook(schema.Workload, _hook(partial(values.workload, backends=backends)))
    converter.register_structure_hook_func(lambda type_: type_ is Any, _hook(values.anything))
    converter.register_structure_hook_func(_origin_is(Literal), _choice)
    converter.register_structure_hook_factory(_origin_is(tuple), _list_hook)
    converter.register_structure_hook_factory(_origin_is(Mapping), _mapping_hook)
    converter.register_structure_hook_factory(attrs.has, _class_hook)
    return converter


def _hook(check: Callable[[object], Any]) -> Hook:
    return lambda value, _: value if isinstance(value, Unresolved) else check(value)


def _choice(value: Any, type_: Any) -> Any:
    return value if isinstance(value, Unresolved) else values.choice(value, type_)


def _origin_is(origin: Any) -> Callable[[Any], bool]:
    """A test for a generic type; typing's and collections.abc's forms have the same origin."""
    return lambda type_: get_origin(type_) is origin


def _list_hook(type_: Any, converter: cattrs.Converter) -> Hook:
    element: Any = GenericAlias(list, get_args(type_)[:1])
    structure_list = list_structure_factory(element, converter)

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, list):
            raise Wrong(f"expected a list, got {kind(value)}")
        return tuple(structure_list(value, None))

    return hook


def _mapping_hook(type_: Any, converter: cattrs.Converter) -> Hook:
    """As cattrs does it, but with the problems of a key and of its value both."""
    key_type, value_type = get_args(type_)

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise Wrong(f"expected a mapping, got {kind(value)}")
        result: dict[Any, Any] = {}
        errors: list[Exception] = []
        for key, item in value.items():
            done: list[Any] = []
            for part, part_type in ((key, key_type), (item, value_type)):
                try:
                    done.append(converter.structure(part, part_type))
                except Exception as error:  # flatten raises what is not a problem of the file
                    error.add_note(IterableValidationNote("in a mapping", key, part_type))
                    errors.append(error)
            if len(done) == 2:
                result[done[0]] = done[1]
        if errors:
            raise IterableValidationError("in a mapping", errors, dict)
        return result

    return hook


def _class_hook(type_: Any, converter: cattrs.Converter) -> Hook:
    """A class from a mapping with keys in camelCase. A key without a value counts as one that is not there."""
    known = {attribute.name: camel(attribute.name) for attribute in attrs.fields(type_)}
    overrides = {name: override(rename=key) for name, key in known.items()}
    structure_class = make_dict_structure_fn(type_, converter, **overrides)  # type: ignore[arg-type]
    keys = set(known.values())

    def hook(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise Wrong(f"expected a mapping, got {kind(value)}")
        return structure_class({key: item for key, item in value.items() if item is not None or key not in keys}, type_)

    return hook
