"""Closing in time: whatever is locked, full or away, nobody is kept for longer than was said."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

DRAIN = 25.0
"""Seconds that what runs is given to end: with what comes after it, less than the 30 that Kubernetes gives."""
CLOSING = 0.9
"""Seconds for all else, a second in all: the last records, a goodbye to the database, its connections."""


def let_go(what: str, seconds: float, parts: Iterable[Callable[[], object]]) -> None:
    """Do all parts in their order, whatever becomes of the ones before; after so many seconds they go on without us.

    Raises:
        Exception: what the first part that failed has raised.
    """
    failures: list[BaseException] = []

    def work() -> None:
        for part in parts:
            try:
                part()
            except BaseException as error:
                failures.append(error)

    thread = threading.Thread(target=work, name="operon-closing", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        import logging

        said = "%s is closed, though its database, or a transaction there, does not let go of it yet."
        logging.getLogger("operon").warning(said, what)
    elif failures:
        raise failures[0]


@contextmanager
def regardless(what: str) -> Generator[None]:
    """Undo a launch that failed: what goes wrong with that is logged; its caller is to see why the launch failed."""
    try:
        yield
    except Exception:
        import logging

        logging.getLogger("operon").warning("%s, whose launch failed, did not close well.", what, exc_info=True)
