"""What a test finds around itself: the same, whoever started the suite, and however.

A shell starts background jobs with SIGINT ignored, nohup ignores SIGHUP, a service manager closes stdin, and people
have time zones, languages and habits. Programs inherit all of it, and so would those that tests start.
"""

from __future__ import annotations

import locale
import os
import signal
import time
from typing import Any, Final

KEPT: Final = (
    # Where things are.
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_"),
    # Which programs are tested, and how they are watched.
    *("OPERON_TEST_PG", "OPERON_PG_BIN", "PYTHONPATH", "PYTHONHOME", "PYTHONPYCACHEPREFIX"),
    *("PYTEST_", "PYRIGHT_PYTHON_", "COVERAGE_", "COV_"),
)
"""How the names begin that may stay in the environment; every other could change what is tested."""

SET: Final = {"TZ": "UTC", "LC_ALL": "C.UTF-8"}
OWN: Final[dict[signal.Signals, Any]] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGPIPE: signal.SIG_IGN,
    signal.SIGXFSZ: signal.SIG_IGN,
}
"""What Python itself does with signals, where nobody has said otherwise."""


def undisturbed() -> None:
    """Give this process, and whatever it starts, the signals, environment, time zone and files that tests count on."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - OWN.keys() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    for number, own in OWN.items():
        if signal.getsignal(number) in {signal.SIG_IGN, signal.SIG_DFL}:
            signal.signal(number, own)
    for name in tuple(os.environ):
        if not name.startswith(KEPT):
            del os.environ[name]
    os.environ.update(SET)
    time.tzset()
    locale.setlocale(locale.LC_ALL, "")
    os.umask(0o022)
    _open_stdin()


def _open_stdin() -> None:
    """Open nothing as standard input where there is none, lest the next file that is opened become it."""
    try:
        os.fstat(0)
    except OSError:
        os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)  # noqa: FBT003 - positional in the library
