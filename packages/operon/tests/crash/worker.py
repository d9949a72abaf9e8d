"""The process that is killed: runs the app, takes orders over a pipe, and says what became of them."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import operon
from crash.effects import Effect, Effects
from crash.points import Point, Trap, TrappedStore, arm
from crash.program import make
from operon.app import app
from operon.app.stores import store_for
from operon.core.rows import WorkflowRow
from operon.core.store import Store
from operon.errors import Duplicate

PR_SET_PDEATHSIG = 1
ORDERS = 6
"""Orders that are taken at a time."""


@dataclass(frozen=True, slots=True)
class Order:
    """Work for one key; given again until it is known to be accepted."""

    key: str
    kind: str
    args: tuple[Any, ...] = ()
    call: bool = False
    """Call it and give the result, instead of starting it."""
    reject: bool = False


@dataclass(frozen=True, slots=True)
class Birth:
    """What a worker is made with."""

    url: str
    effects: Path
    lease: float = 1.2
    point: Point | None = None
    log: Path | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """What a worker says: that it is ready (with its executor's id), or what became of an order."""

    what: str
    order: Order | None = None
    value: Any = None


def main(birth: Birth, pipe: Connection[Any, Any]) -> None:
    """Live until killed, or until the pipe's other end is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if birth.log is not None:
        logging.basicConfig(filename=birth.log, format=f"%(asctime)s {os.getpid()} %(message)s")
    effects = Effects(birth.effects)
    trap = Trap(birth.point)
    program, functions = make(birth.url, effects, lease=birth.lease)
    _set(trap, effects)
    with program:
        desk = Desk(functions, pipe)
        host = program.host
        assert host is not None
        desk.say(Word("ready", value=host.executor))
        desk.serve()
        program.close(drain=0.0)


def _set(trap: Trap, effects: Effects) -> None:
    """Put the trap between the engine and its store, and between transactions and their connections."""

    def claimed(row: WorkflowRow) -> None:
        effects.append(Effect("claim", row.id, row.claim, executor=row.executor or 0))

    def trapped(database: object) -> Store:
        store: Any = TrappedStore(store_for(database), trap, claimed)
        arm(trap, tuple(store.queries[name] for name in ("record", "settle")))
        chosen: Store = store
        return chosen

    setattr(app, "store_for", trapped)


class Desk:
    """Takes orders, several at a time."""

    def __init__(self, functions: dict[str, Any], pipe: Connection[Any, Any]) -> None:
        self._functions = functions
        self._pipe = pipe
        self._speaking = threading.Lock()
        self._hands = ThreadPoolExecutor(ORDERS)

    def say(self, word: Word) -> None:
        """Send a word."""
        with self._speaking:
            self._pipe.send(word)

    def serve(self) -> None:
        """Take orders until told to leave, or left alone."""
        while True:
            try:
                order: Order | None = self._pipe.recv()
            except EOFError:
                os._exit(1)
            if order is None:
                return
            self._hands.submit(self._take, order)

    def _take(self, order: Order) -> None:
        try:
            function = self._functions[order.kind].using(
                key=order.key, on_duplicate="reject" if order.reject else "join"
            )
            if order.call:
                self.say(Word("answered", order, function(*order.args)))
            else:
                operon.start(function, *order.args)
                self.say(Word("accepted", order))
        except Duplicate:
            self.say(Word("duplicate", order))
        except Exception as error:
            self.say(Word("failed", order, repr(error)))
