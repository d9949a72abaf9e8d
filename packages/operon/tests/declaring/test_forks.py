"""A process that a function of the user's forks is none of ours, whatever becomes of it."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from children import ran

COMING_BACK = """
import asyncio, os, sys, warnings
import operon

warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
app = operon.Operon("forked", database=sys.argv[1])
runs: list[str] = []

def fork(how: str) -> int:
    runs.append(how)
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if how == "raises":
        raise LookupError(how)
    return sys.exit(7) if how == "exits" else 0

step = app.step(fork, name="step")
limited = app.step(fork, name="limited", timeout=30)

@app.step(retries=1, backoff=0)
async def awaited(how: str) -> int:
    return fork(how)

@app.workflow
def blocking(how: str) -> list[int]:
    return [step(how), limited(how)]

@app.workflow
async def waiting(how: str) -> int:
    return await awaited(how)

@app.workflow
def body(how: str) -> int:
    return fork(how)

with app:
    codes = []
    for how in ("raises", "returns", "exits"):
        first, *others = [operon.start(flow, how) for flow in (blocking, waiting, body)]
        codes.append(first.result(30) + [other.result(30) for other in others])
    assert codes == [[1] * 4, [1] * 4, [7] * 4], codes
    assert len(runs) == 12, runs
    assert step("exits") == 7 and blocking("exits") == [7, 7], "in the main thread, too"
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_process_that_a_function_forked_records_nothing_of_its_run(database: Any) -> None:
    """Whether it returns, raises or exits: what it would write is the parent's to say, and so are the connections."""
    url = database if isinstance(database, str) else "memory:"
    said = ran(sys.executable, "-c", COMING_BACK, url)
    assert said.stdout.endswith("fine\n"), said.stderr
    assert "LookupError: raises" in said.stderr
    assert "os._exit()" in said.stderr
