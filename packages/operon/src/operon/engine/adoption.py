"""What stands before the standard library's functions while an app is launched, so that a body's work is seen.

What a body submits to a `ThreadPoolExecutor` is adopted as a piece of it; threads that it starts itself, pools of
`multiprocessing` and other processes are strays. What steps and transactions do with threads passes untouched, and so
does what nobody's body does. Coroutines of a body begin in the order in which it gives them. An import changes nothing.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, _base
from typing import Any, cast

from operon.core import context
from operon.core.context import Stray
from operon.engine import turns
from operon.engine.branches import in_order
from operon.engine.pieces import Adopted, Piece, Waited, line
from operon.engine.runtime import Runtime
from operon.engine.strays import Elsewhere, StrayFuture, about_to_start, collects, ordinary, own_threads


class Patches:
    """What stands before the standard library's functions while an app is launched here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders: set[object] = set()
        self._own: list[tuple[Any, str, Any, Any]] = []
        """Where, what was there, and what stands before it."""
        self._pools = False

    def install(self, holder: object) -> None:
        """Stand before them, once for all apps; the holder is what `remove` is given."""
        with self._lock:
            there = bool(self._holders)
            self._holders.add(holder)
            if there:
                return
            gc.callbacks.append(collects)
            self._put(ThreadPoolExecutor, "submit", _submit)
            self._put(ThreadPoolExecutor, "shutdown", _shutdown)
            self._put(ProcessPoolExecutor, "submit", _send)
            self._put(threading.Thread, "start", _start)
            self._put(_base, "_create_and_install_waiters", _watch)
            for module in (asyncio, asyncio.tasks):
                self._put(module, "as_completed", in_order)
        self.see_pools()

    def see_pools(self) -> None:
        """Stand before the pools of `multiprocessing`, too, once that is loaded: there is none before."""
        pools = sys.modules.get("multiprocessing.pool")
        if pools is None or self._pools:
            return
        with self._lock:
            if self._holders and not self._pools:
                self._pools = True
                for name in ("apply_async", "_map_async", "imap", "imap_unordered"):
                    self._put(pools.Pool, name, _scatter)

    def _put(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        if name not in vars(owner):  # what is not public may go
            return
        original = cast("Callable[..., Any]", vars(owner)[name])
        mine = functools.update_wrapper(make(original), original)
        self._own.append((owner, name, original, mine))
        setattr(owner, name, mine)

    def remove(self, holder: object) -> None:
        """Give them back with the last app, unless somebody else has stood before them since: ours do nothing then.

        Harmless for a holder that has let go, or never held them.
        """
        with self._lock:
            if holder not in self._holders:
                return
            self._holders.remove(holder)
            if self._holders:
                return
            if collects in gc.callbacks:  # not where `install` was interrupted
                gc.callbacks.remove(collects)
            for owner, name, original, mine in self._own:
                if vars(owner)[name] is mine:
                    setattr(owner, name, original)
            self._own.clear()
            self._pools = False


patches = Patches()


def _submit(original: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
    def submit(pool: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        here = context.body()
        initialized = getattr(pool, "_initializer", pool) is not None  # where it is not to be seen there may be one
        if isinstance(fn, Piece):  # somebody stood between two of ours
            return original(pool, fn)
        if here is None:
            return original(pool, ordinary(fn) if initialized else fn, *args, **kwargs)
        if any(kind.__module__ == "concurrent.futures.interpreter" for kind in type(pool).__mro__):
            return _sent(original, pool, "in another interpreter", fn, args, kwargs)
        piece: Piece[Any] = Piece(here, functools.partial(fn, *args, **kwargs))
        try:
            with own_threads(initialized=initialized):
                return piece.give(original(pool, piece))
        except BaseException:
            piece.refused()
            raise

    return submit


def _shutdown(original: Callable[..., None]) -> Callable[..., None]:
    def shutdown(pool: ThreadPoolExecutor, wait: bool = True, **options: Any) -> None:
        here = line()
        if here is None or not wait:
            original(pool, wait, **options)
            return
        with turns.resting(cast("Runtime", here.run.host), here):
            original(pool, wait, **options)

    return shutdown


def _send(original: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
    def submit(pool: Executor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if context.body() is None or isinstance(fn, Elsewhere):
            return original(pool, fn, *args, **kwargs)
        return _sent(original, pool, "in another process", fn, args, kwargs)

    return submit


def _sent(
    submit: Callable[..., Future[Any]],
    pool: Executor,
    where: str,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Future[Any]:
    here = context.body()
    with own_threads():
        future = submit(pool, Elsewhere(fn, Stray(where, here.run if here else None)), *args, **kwargs)
    future.__class__ = StrayFuture
    return future


def _scatter(original: Callable[..., Any]) -> Callable[..., Any]:
    def scatter(pool: Any, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        here = context.body()
        if here is not None:
            func = Elsewhere(func, Stray("in a pool of multiprocessing", here.run))
        return original(pool, func, *args, **kwargs)

    return scatter


def _start(original: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    def start(thread: threading.Thread) -> None:
        patches.see_pools()  # each begins with a thread
        about_to_start(thread)
        original(thread)

    return start


def _watch(original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def watch(futures: Any, return_when: Any) -> Any:
        waiter, here = original(futures, return_when), line()
        if here is not None and any(isinstance(future, Adopted) for future in futures):
            waiter.event = Waited(here)
        return waiter

    return watch
