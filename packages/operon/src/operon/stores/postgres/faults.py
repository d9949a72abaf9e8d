"""What an error of the database means for whoever asked, as one table; it must not know what was asked."""

from __future__ import annotations

from enum import Enum

import psycopg

from operon.errors import RowLocked, StoreError, StoreUnavailable


class Fault(Enum):
    """What to do after an error."""

    LOST = "the connection is of no use any more, and the commit may or may not have happened: reconnect, and resolve"
    LOCKED = "nothing happened, because a row is locked: go on without it"
    AGAIN = "nothing happened, and the same may succeed a moment later"
    FINAL = "nothing happened, and the same would fail again"


FAULTS: dict[str, Fault] = {
    "08": Fault.LOST,  # connection exceptions
    "0A000": Fault.LOST,  # "cached plan must not change result type": a migration ran; a new connection plans anew
    "25006": Fault.LOST,  # read only: a standby, or a primary that was demoted; reconnecting finds the new one
    "25P03": Fault.LOST,  # idle_in_transaction_session_timeout
    "25P04": Fault.LOST,  # transaction_timeout
    "26000": Fault.LOST,  # a pooler gave us a server without our prepared statements
    "40001": Fault.AGAIN,  # serialization failure
    "40003": Fault.LOST,  # statement completion unknown
    "40P01": Fault.AGAIN,  # deadlock
    "42P05": Fault.LOST,  # a pooler gave us a server with another's prepared statements
    "53": Fault.AGAIN,  # out of disk, memory, connections
    "55P03": Fault.LOCKED,  # lock_timeout
    "57014": Fault.AGAIN,  # cancelled by somebody, or a statement_timeout
    "57P": Fault.LOST,  # shut down, crashed, starting up, dropped, idle too long
    "58030": Fault.AGAIN,  # input or output failed
}
"""By SQLSTATE, or its class; the longest that fits counts, and whatever is not here is final."""


def fault(error: BaseException) -> Fault:
    """Look an error up; one that the client library found without the server's help is a lost connection."""
    if not isinstance(error, psycopg.Error):
        return Fault.FINAL
    if error.sqlstate is None:
        return Fault.LOST if isinstance(error, psycopg.OperationalError) else Fault.FINAL
    fitting = (error.sqlstate[:length] for length in (5, 3, 2))
    return next((FAULTS[state] for state in fitting if state in FAULTS), Fault.FINAL)


def explain(error: BaseException, where: str) -> StoreError:
    """Say what happened, where, and what to do; the password is not in it."""
    told = tell(fault(error), str(error).strip().partition("\n")[0] or type(error).__name__, where)
    told.__cause__ = error
    return told


def tell(meaning: Fault, said: str, where: str) -> StoreError:
    """Put it in a sentence."""
    match meaning:
        case Fault.FINAL:
            return StoreError(f"The database at {where} refused: {said}")
        case Fault.LOCKED:
            return RowLocked(
                f"A transaction elsewhere keeps a row locked in the database at {where} ({said}). Nothing was written. "
                "Look for sessions `idle in transaction` in pg_stat_activity; trying again is safe."
            )
        case Fault.LOST | Fault.AGAIN:
            return StoreUnavailable(
                f"The database at {where} is out of reach: {said}. "
                "Check that it runs, accepts connections and writes, and that the URL is right; trying again is safe."
            )


def closed() -> StoreError:
    """Say that a store was asked after it was closed."""
    return StoreError("The store is closed: launch the app again.")
