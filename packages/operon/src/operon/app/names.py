"""Which function a recorded name means: one only, in a part and in all that include it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from operon.core.function import Function
from operon.errors import DeclarationError


class Names:
    """The names known in one part; what is declared there is known further out, too."""

    def __init__(self) -> None:
        self.outer: Names | None = None
        self._known: dict[str, Function] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def outwards(self) -> Iterator[Names]:
        """These names, those of what includes this part, and so on."""
        yield self
        if self.outer is not None:
            yield from self.outer.outwards()

    def refuse_second(self, function: Function) -> None:
        """Compare a function with what has its names already, here and further out.

        Raises:
            DeclarationError: that is another one.
        """
        for name in function.names:
            if (there := self._known.get(name)) is not None and there is not function:
                _compare(there, function, name)
        if self.outer is not None:
            self.outer.refuse_second(function)

    def add(self, function: Function) -> None:
        """Know a function, here and further out."""
        self._known.update(dict.fromkeys(function.names, function))
        if self.outer is not None:
            self.outer.add(function)


def _compare(there: Function, function: Function, name: str) -> None:
    """Let pass what is one function declared again, and no other of its name."""
    if there.fn is function.fn and there.kind != function.kind:
        raise DeclarationError(
            f"{name} is a {there.kind} already, and a {function.kind} here; one function has one kind."
        )
    if not _same(there, function):
        raise DeclarationError(
            f"Two functions are recorded as {name!r}: {_origin(there)}, and {_origin(function)}. "
            "Give one of them name=..., for rows find their function by it."
        )


def _same(one: Function, other: Function) -> bool:
    """Whether these are one function: wrapped again, or of a script whose module is imported under its own name too.

    A step may be defined anew by each run of the body around it, for no row looks for it by name.
    """
    if one.fn is other.fn:
        return one.rules == other.rules or one.kind == "step"
    here, there = getattr(one.fn, "__code__", None), getattr(other.fn, "__code__", None)
    if here is None or there is None or one.kind != other.kind:
        return False
    if here is there and one.kind == "step":
        return True
    twice = one.module != other.module and "__main__" in {one.module, other.module}
    return twice and (here.co_filename, here.co_firstlineno) == (there.co_filename, there.co_firstlineno)


def _origin(function: Function) -> str:
    """Say where a function is, as a traceback would."""
    code = getattr(inspect.unwrap(function.fn), "__code__", None)
    place = "" if code is None else f" ({code.co_filename}:{code.co_firstlineno})"
    return f"{function.module}.{getattr(function.fn, '__qualname__', function.fn)}{place}"
