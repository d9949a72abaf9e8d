"""A store in memory that holds commands back, or refuses them, as a test says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from operon.core.commands import Command
from operon.promises import Promise
from operon.stores.memory import Clock, MemoryStore

T = TypeVar("T")


def nothing(_: Command[Any]) -> bool:
    """Hold nothing back."""
    return False


def fine(_: Command[Any]) -> Exception | None:
    """Refuse nothing."""
    return None


class Stubborn(MemoryStore):
    """Answers when it is let: what `holds` says waits for `go`, what `refuses` says is refused."""

    def __init__(self) -> None:
        super().__init__(Clock(time.time))
        self.holds: Callable[[Command[Any]], bool] = nothing
        self.refuses: Callable[[Command[Any]], Exception | None] = fine
        self.arrived = threading.Event()
        self.go = threading.Event()
        self.asked: list[Command[Any]] = []

    def ask(self, command: Command[T]) -> T:
        """Answer a command in its time."""
        self.asked.append(command)
        if (refusal := self.refuses(command)) is not None:
            raise refusal
        if self.holds(command):
            self.arrived.set()
            assert self.go.wait(20)
        return super().ask(command)

    def submit(self, command: Command[T], then: Callable[[Future[T]], object] | None = None) -> Future[T]:
        """Answer a command in its time, on a thread if it is held back."""
        if not self.holds(command):
            return super().submit(command, then)
        future: Future[T] = Promise(then)

        def answer() -> None:
            try:
                future.set_result(self.ask(command))
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=answer, daemon=True).start()
        return future
