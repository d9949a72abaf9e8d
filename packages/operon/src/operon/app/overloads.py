"""The types of the verbs whose result depends on what they are given; it must not know how they work."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Literal, Protocol, TypeVar, overload

from operon.app.declarations import Durable
from operon.core.results import Handle

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
R = TypeVar("R")


class Retrieve(Protocol):
    """`retrieve`, blocking: the workflow gives the handle its type."""

    @overload
    def __call__(self, workflow_id: str, /) -> Handle[Any]: ...
    @overload
    def __call__(self, workflow_id: str, of: Durable[..., R], /) -> Handle[R]: ...


class AsyncRetrieve(Protocol):
    """`retrieve`, awaited."""

    @overload
    def __call__(self, workflow_id: str, /) -> Coroutine[Any, Any, Handle[Any]]: ...
    @overload
    def __call__(self, workflow_id: str, of: Durable[..., R], /) -> Coroutine[Any, Any, Handle[R]]: ...


class Gather(Protocol):
    """`gather`, blocking: handles of different results give a tuple of just those."""

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
    """`gather`, awaited."""

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
