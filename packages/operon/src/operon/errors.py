"""Every error Operon raises, in one tree; it must not know what raises them.

OperonError
├── DeclarationError            the program is wrong, and says so at import or launch
│   ├── WrongColour             a blocking verb on a running loop, or the other way round
│   ├── NotLaunched             no app is running here
│   ├── AmbiguousApp            several are
│   └── ForkedProcess           launched before a fork
├── BadValue                    what was passed in cannot be used
│   ├── NotSerializable         a value that cannot be recorded
│   │   └── PayloadTooLarge     or is larger than the limit
│   ├── NotDeserializable       a recorded value that does not fit its type
│   ├── InvalidId               a key no database can hold
│   ├── KeyConflict             the key belongs to other work
│   ├── Duplicate               the key is taken, and on_duplicate="reject"
│   └── WrongDatabase           `within=` a connection to another database
├── NotFound                    no such workflow
│   └── RecordDeleted           it ran, and its record was deleted since; its key is known
├── NotEnded                    what is to be deleted may still run
├── NotInWorkflow               the verb needs a workflow around it
├── Forbidden                   the user has none of the roles that the function asks for
├── WorkflowFailure             what `result()` raises when there is no result
│   ├── WorkflowCancelled
│   ├── WorkflowHeld
│   └── WorkflowTimedOut
├── StillRunning                waited too long; the work goes on
├── StepFailed                  a step's error that cannot be rebuilt as itself
├── StepTimedOut                a step ran past its timeout
├── Divergence                  code and journal disagree; the workflow is held
├── TransactionEnded            commit or rollback inside a transaction
└── StoreError                  the database
    ├── StoreUnavailable        out of reach for now; it is safe to try again
    │   └── RowLocked           a transaction elsewhere keeps a row locked
    ├── SchemaMismatch          migrated by another version
    ├── ForeignDatabase         a copy or restore of another database
    └── StoreReadOnly           declared read-only, and asked to write

Two are no `Exception`, so that `except Exception` lets them pass:
Suspended, Cancelled            (BaseException) a workflow leaves its function early
"""

from __future__ import annotations

from typing import ClassVar


class OperonError(Exception):
    """The root of every error that Operon raises."""


class DeclarationError(OperonError):
    """The program declares something that cannot work; nothing has run."""


class WrongColour(DeclarationError):
    """A blocking verb was called on a running event loop, or an async one in blocking code."""


class NotLaunched(DeclarationError):
    """No app is launched in this process: wrap the call in `with app:`."""


class AmbiguousApp(DeclarationError):
    """Several apps are launched and nothing says which one is meant."""


class ForkedProcess(DeclarationError):
    """The app was launched before a fork; launch it in each child instead."""


class BadValue(OperonError, ValueError):
    """A value that was passed in cannot be used; nothing was recorded."""


class NotSerializable(BadValue):
    """A value cannot be recorded; names the function, the path inside the value, and the way out."""


class PayloadTooLarge(NotSerializable):
    """A value's recorded form is larger than the app's `max_payload`."""


class NotDeserializable(BadValue):
    """A recorded value does not fit the type that the code now declares."""


class InvalidId(BadValue):
    """A key is empty, longer than 255 characters, or holds control characters or lone surrogates."""


class KeyConflict(BadValue):
    """The key already names other work: another function, or other arguments."""


class Duplicate(BadValue):
    """The key is taken, and the call said `on_duplicate="reject"`."""


class WrongDatabase(BadValue):
    """A connection, a client or an app is of another database than what it is used in."""


class NotFound(OperonError, LookupError):
    """No workflow has this id."""


class RecordDeleted(NotFound):
    """A workflow of this id ran and ended; its record was deleted since, and it does not run again."""


class NotEnded(OperonError):
    """What is to be deleted may still run, or be read: cancel it first."""


class NotInWorkflow(OperonError):
    """The verb needs a running workflow around it."""


class Forbidden(OperonError):
    """The work is for a user who has none of the roles that the function asks for; nothing of it has run."""


class WorkflowFailure(OperonError):
    """A workflow ended, or stopped, without a result."""

    def __init__(self, message: str, workflow_id: str = "") -> None:
        super().__init__(message, workflow_id)
        self.message = message
        self.workflow_id = workflow_id

    def __str__(self) -> str:
        return self.message


class WorkflowCancelled(WorkflowFailure):
    """The workflow was cancelled."""


class WorkflowHeld(WorkflowFailure):
    """The workflow waits for a person to decide: to cancel it, or to delete it and start it again."""


class WorkflowTimedOut(WorkflowFailure):
    """The workflow passed its deadline and was stopped."""


class StillRunning(OperonError, TimeoutError):
    """The wait ended before the workflow did; the workflow goes on."""


class StepFailed(OperonError):
    """A step failed with an error that cannot be rebuilt as itself; `.type` and `.message` say what it was."""

    def __init__(self, type: str, message: str) -> None:  # noqa: A002 - the contract names the attribute `.type`
        super().__init__(type, message)
        self.type = type
        self.message = message

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


class StepTimedOut(OperonError, TimeoutError):
    """A step ran past its timeout and was abandoned."""


class Divergence(OperonError):
    """The code asked for something else than the journal has at this position; the workflow is held."""


class TransactionEnded(OperonError):
    """`commit()` or `rollback()` was called inside a transaction; return to commit, raise to roll back."""


class StoreError(OperonError):
    """The database refused, or could not be reached."""

    transient: ClassVar[bool] = False


class StoreUnavailable(StoreError):
    """The database is out of reach for now; trying again is safe."""

    transient: ClassVar[bool] = True


class RowLocked(StoreUnavailable):
    """A transaction elsewhere keeps a row locked; nothing was written, and trying again is safe."""


class SchemaMismatch(StoreError):
    """The database was migrated by another version of Operon; run `operon migrate`."""


class ForeignDatabase(StoreError):
    """The database is a copy of another one; nothing runs until a person says that it may."""


class StoreReadOnly(StoreError):
    """The transaction was declared `read_only=True` and wrote."""


class Suspended(BaseException):
    """A long wait leaves the workflow's function; it is replayed when the wait is over."""


class Cancelled(BaseException):
    """The workflow was cancelled; steps called while it is handled still run.

    To asyncio it is a `CancelledError`, so that task groups and their like know what it is.
    """
