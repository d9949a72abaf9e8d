"""How `gather` is typed: handles of different results give a tuple of just those; it must not know how it waits."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Literal, Protocol, TypeVar, overload

from operon.core.results import Handle

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
R = TypeVar("R")


class Gather(Protocol):
    """The blocking verb."""

    @overload
    def __call__(self, a: Handle[A], b: Handle[B], /) -> tuple[A, B]: ...
    @overload
    def __call__(self, a: Handle[A], b: Handle[B], c: Handle[C], /) -> tuple[A, B, C]: ...
    @overload
    def __call__(self, a: Handle[A], b: Handle[B], c: Handle[C], d: Handle[D], /) -> tuple[A, B, C, D]: ...
    @overload
    def __call__(
        self, a: Handle[A], b: Handle[B], c: Handle[C], d: Handle[D], e: Handle[E], /
    ) -> tuple[A, B, C, D, E]: ...
    @overload
    def __call__(self, *handles: Handle[R], errors: Literal["raise"] = "raise") -> tuple[R, ...]: ...
    @overload
    def __call__(self, *handles: Handle[R], errors: Literal["return"]) -> tuple[R | Exception, ...]: ...


class AsyncGather(Protocol):
    """The awaited verb."""

    @overload
    def __call__(self, a: Handle[A], b: Handle[B], /) -> Coroutine[Any, Any, tuple[A, B]]: ...
    @overload
    def __call__(self, a: Handle[A], b: Handle[B], c: Handle[C], /) -> Coroutine[Any, Any, tuple[A, B, C]]: ...
    @overload
    def __call__(
        self, a: Handle[A], b: Handle[B], c: Handle[C], d: Handle[D], /
    ) -> Coroutine[Any, Any, tuple[A, B, C, D]]: ...
    @overload
    def __call__(
        self, a: Handle[A], b: Handle[B], c: Handle[C], d: Handle[D], e: Handle[E], /
    ) -> Coroutine[Any, Any, tuple[A, B, C, D, E]]: ...
    @overload
    def __call__(
        self, *handles: Handle[R], errors: Literal["raise"] = "raise"
    ) -> Coroutine[Any, Any, tuple[R, ...]]: ...
    @overload
    def __call__(
        self, *handles: Handle[R], errors: Literal["return"]
    ) -> Coroutine[Any, Any, tuple[R | Exception, ...]]: ...
