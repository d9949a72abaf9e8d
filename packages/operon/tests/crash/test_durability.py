"""Nothing begins before what came before it is durable: the one rule that every crash test rests on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from children import PATIENCE, joined
from operon import Operon
from operon.core.commands import Advance, Command
from operon.promises import Promise
from operon.stores.memory import MemoryStore


class SlowStore(MemoryStore):
    """Takes journal entries that are submitted, and commits them when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.taken, self.go = threading.Event(), threading.Event()
        self.log: list[str] = []

    def submit(self, command: Command[Any], then: Callable[[Future[Any]], object] | None = None) -> Future[Any]:
        """Answer a command later; an advance, when it may."""
        if not isinstance(command, Advance):
            return super().submit(command, then)
        answer: Future[Any] = Promise(then)

        def commit() -> None:
            self.go.wait(PATIENCE)
            result = self.ask(command)
            self.log.append("one is durable")
            answer.set_result(result)

        threading.Thread(target=commit).start()
        self.taken.set()
        return answer


def test_a_step_waits_for_a_commit_that_is_under_way() -> None:
    """A record that lingered is being written when the next step is called: that step begins only after it."""
    store = SlowStore()
    app = Operon("durable", database=store)
    began = threading.Event()

    @app.step
    def one() -> int:
        return 1

    @app.step
    def two() -> int:
        store.log.append("two begins")
        began.set()
        return 2

    @app.workflow
    def flow() -> int:
        first = one()
        assert store.taken.wait(PATIENCE)
        return first + two()

    def allow() -> None:
        store.taken.wait(PATIENCE)
        began.wait(0.3)  # it must not come; if it did, it would be at once
        store.go.set()

    opener = threading.Thread(target=allow)
    opener.start()
    with app:
        assert flow() == 3
    joined(opener)
    assert store.log[:2] == ["one is durable", "two begins"]
