"""The Structs of the package: those that the garbage collector does not track hold nothing but plain values."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from .test_layout import modules

#: What refers to nothing.
_PLAIN = (bool, int, float, str, bytes, type(None))

#: What refers to nothing but its items.
_CONTAINERS = (tuple, dict, list, set, frozenset, types.UnionType, typing.Union, typing.Literal)


def structs() -> Iterator[type[Struct]]:
    """List all Structs that the package defines."""
    for name in modules():
        for value in vars(import_module(name)).values():
            if isinstance(value, type) and issubclass(value, Struct) and value.__module__ == name:
                yield value


def unsafe(kind: Any) -> list[str]:
    """List the types in an annotation whose values could refer to a frame, and so back to what holds them."""
    if kind in _PLAIN:
        return []
    if isinstance(kind, type) and issubclass(kind, Struct):
        return [f"{kind.__name__}.{name}" for name, each in fields(kind).items() if unsafe(each)]
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        return []
    if origin in _CONTAINERS:
        arguments = [each for each in typing.get_args(kind) if each is not Ellipsis]
        return [found for each in arguments for found in unsafe(each)]
    return [str(kind)]


def fields(kind: type[Struct]) -> dict[str, Any]:
    """Resolve the annotations of a Struct's fields; a name that only type checkers import stands for any object."""
    # An array takes no type argument before Python 3.12; what it holds is as plain as a list of int.
    names: dict[str, Any] = {**vars(import_module(kind.__module__)), "array": list}
    while True:
        try:
            hints = typing.get_type_hints(kind, names)
        except NameError as error:
            names[str(error.name)] = object
        else:
            return {name: hints[name] for name in kind.__struct_fields__}


def objections(kind: type[Struct]) -> list[str]:
    """List the fields because of which the collector must track a Struct that says that it need not."""
    if kind.__struct_config__.gc:
        return []
    return [f"{kind.__name__}.{name}: {each}" for name, field in fields(kind).items() for each in unsafe(field)]


class CollectorTests(SynchronousTestCase):
    def test_structs_without_gc_hold_plain_values_only(self) -> None:
        found = list(structs())
        self.assertGreater(sum(not kind.__struct_config__.gc for kind in found), 20)
        self.assertEqual([each for kind in found for each in objections(kind)], [])

    def test_fields_that_can_reach_a_frame_are_found(self) -> None:
        class Inner(Struct):
            error: Exception

        class Bad(Struct, gc=False):
            plain: tuple[int, ...]
            error: Exception | None
            failure: Failure
            wake: Callable[[], None]
            later: Deferred[int]
            anything: Any
            inner: Inner | None
            several: dict[str, list[object]]

        vars(import_module(__name__)).update(Inner=Inner)
        self.addCleanup(vars(import_module(__name__)).pop, "Inner")
        names = [each.partition(":")[0].partition(".")[2] for each in objections(Bad)]
        self.assertEqual(names, ["error", "failure", "wake", "later", "anything", "inner", "several"])
