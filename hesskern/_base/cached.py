"""Properties computed once per object, without the lock that `functools.cached_property` holds before Python 3.12."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


class cached_property(Generic[T]):  # noqa: N801 - read like `property`
    """A property that is computed when first asked for, and then kept in the object's ``__dict__``.

    Two threads that ask at the same time may both compute it. The standard library's property, up to Python 3.11, has
    one lock for all objects of a class; a process that is forked while a thread holds it waits for ever.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute, self.__doc__ = compute, compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object, owner: type) -> Self | T:
        if instance is None:
            return self
        return vars(instance).setdefault(self._name, self._compute(instance))  # type: ignore[no-any-return]
