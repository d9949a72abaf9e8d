"""The suite means the same wherever it is started: what its starter left behind reaches no test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from children import ran, runs, started

TESTS = Path(__file__).parent
LOOK = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from surroundings import undisturbed
undisturbed()
import json, locale, os, signal, subprocess, time
program = '''
import json, os, signal
ignored = [it.name for it in signal.Signals if signal.getsignal(it) is signal.SIG_IGN]
blocked = [it.name for it in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
print(json.dumps([ignored, blocked, dict(os.environ), os.umask(0), os.fstat(0).st_rdev]))
'''
ignored, blocked, environment, umask, stdin = json.loads(subprocess.check_output([sys.executable, "-c", program]))
print(json.dumps({{
    "ignored": ignored,
    "blocked": blocked,
    "environment": environment,
    "umask": umask,
    "stdin": stdin,
    "zone": time.tzname[0],
    "encoding": locale.getencoding(),
}}))
"""
ODD = {
    "OPERON_DATABASE_URL": "sqlite:///elsewhere.db",
    "PGHOST": "elsewhere",
    "PYTHONWARNINGS": "ignore",
    "TZ": "Asia/Kathmandu",
    "LC_ALL": "tr_TR.UTF-8",
    "LANG": "POSIX",
    "COLUMNS": "7",
    "NO_COLOR": "1",
    "WEB_CONCURRENCY": "9",
    "http_proxy": "http://elsewhere:1",
    "OPERON_TEST_PG": "15",
}


def disturbed() -> None:
    """Do to a process what shells, nohup and service managers do, and people."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    os.umask(0o777)
    os.close(0)


def seen(environment: dict[str, str], before: Callable[[], None] | None) -> dict[str, object]:
    said = ran(sys.executable, "-c", LOOK, check=True, env=environment, preexec_fn=before).stdout
    found: dict[str, object] = json.loads(said)
    return found


def test_starter_of_the_suite_changes_nothing_for_its_tests() -> None:
    """What a program of a test finds is always the same: signals, environment, zone, language, umask, stdin."""
    usual, odd = seen(dict(os.environ), None), seen({**os.environ, **ODD}, disturbed)
    environment = cast("dict[str, str]", odd["environment"])
    assert environment.pop("OPERON_TEST_PG") == "15", "what chooses the Postgres stays"
    assert odd == usual
    assert usual["ignored"] == ["SIGPIPE", "SIGXFSZ"], "as Python has it"
    assert (usual["blocked"], usual["umask"], usual["zone"], usual["encoding"]) == ([], 0o022, "UTC", "UTF-8")


FAMILY = """
import os, subprocess, sys
inner = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
for session in (False, True):
    child = subprocess.Popen(inner, start_new_session=session, stdout=subprocess.PIPE)
    child.stdout.readline()
    print(child.pid, flush=True)
sys.stdin.read()
"""


def test_a_test_that_fails_leaves_no_program_behind() -> None:
    """Whatever a program has started ends with it, in its session or not, when its test is left by an exception."""
    pids: list[int] = []

    def fail() -> None:
        with started(sys.executable, "-c", FAMILY, stdin=subprocess.PIPE) as parent:
            pids.extend([int(parent.says()), int(parent.says()), parent.pid])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    for pid in pids:
        assert not runs(pid), f"process {pid} is left"


def test_what_is_waited_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that does not say or do what it is to ends the test, which tells what it had said till then."""
    silent = "import time; print('something else', flush=True); time.sleep(600)"
    with started(sys.executable, "-c", silent) as program:
        program.says("something else")
        with monkeypatch.context() as impatient:  # and as patient as ever when it is ended
            impatient.setattr("children.PATIENCE", 0.2)
            with pytest.raises(AssertionError, match=r"something else.* did not say 'up' within"):
                program.says("up")
            with pytest.raises(AssertionError, match="did not end within"):
                program.ends()
    with pytest.raises(AssertionError, match="did not end within"):
        ran(sys.executable, "-c", silent, patience=0.2)
