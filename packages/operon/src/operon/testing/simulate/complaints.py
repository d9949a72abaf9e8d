"""Takes what the engine logs as an error for a broken law: it must not stumble, whatever goes wrong."""

from __future__ import annotations

import logging

from operon.testing.simulate.verdicts import LawBroken

NAMES = ("operon", "concurrent.futures", "asyncio")


class Complaints(logging.Handler):
    """While it is entered, takes each complaint for a broken law, and keeps it from everybody else."""

    def __init__(self, complaints: list[BaseException]) -> None:
        super().__init__(logging.ERROR)
        self._complaints = complaints
        self._before: list[bool] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take a complaint."""
        error = record.exc_info[1] if record.exc_info else None
        complaint = LawBroken(f"The engine complains: {record.getMessage()} ({error!r})")
        complaint.__cause__ = error
        self._complaints.append(complaint)

    def __enter__(self) -> None:
        loggers = [logging.getLogger(name) for name in NAMES]
        self._before = [it.propagate for it in loggers]
        for logger in loggers:
            logger.addHandler(self)
            logger.propagate = False

    def __exit__(self, *_: object) -> None:
        for name, propagate in zip(NAMES, self._before, strict=True):
            logger = logging.getLogger(name)
            logger.removeHandler(self)
            logger.propagate = propagate
