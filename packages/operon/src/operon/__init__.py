"""Operon: durable execution on the database you already have. This module lists the blocking verbs.

Nouns are declared, verbs are functions, options go in `.using()`. `operon.aio` has every verb, to be awaited.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import cast as _cast

from operon import aio, schedules
from operon.app import Operon, Routes
from operon.app import queues as app_queues
from operon.app import verbs as app_verbs
from operon.app.client import AsyncClient, Client
from operon.app.declarations import Call
from operon.app.overloads import Gather as _Gather
from operon.app.overloads import Retrieve as _Retrieve
from operon.app.queues import Queue
from operon.app.remote import remote
from operon.app.verbs import blocking
from operon.core import asking, deleting, results, verbs
from operon.core import context as _context
from operon.core.codec import Secret
from operon.core.results import Handle
from operon.errors import OperonError
from operon.types import Context, ScheduleRecord, Status, StepRecord, Unreadable, User, WorkflowRecord

if _TYPE_CHECKING:
    from operon.http import Site as _Site

__all__ = [
    "AsyncClient",
    "Call",
    "Client",
    "Context",
    "Handle",
    "Operon",
    "OperonError",
    "Queue",
    "Routes",
    "ScheduleRecord",
    "Secret",
    "Status",
    "StepRecord",
    "Unreadable",
    "User",
    "WorkflowRecord",
    "aio",
    "cancel",
    "context",
    "count",
    "delete",
    "describe",
    "enqueue",
    "enqueue_many",
    "find",
    "gather",
    "now",
    "remote",
    "retrieve",
    "rng",
    "schedules",
    "sleep",
    "start",
    "steps",
    "uuid4",
]

sleep = blocking(verbs.sleep)
now = blocking(verbs.now)
rng = blocking(verbs.rng)
uuid4 = blocking(verbs.uuid4)
start = blocking(app_verbs.start)
gather: _Gather = blocking(results.gather)
retrieve = _cast("_Retrieve", blocking(app_verbs.retrieve))
describe = blocking(asking.describe)
steps = blocking(asking.steps)
find = blocking(asking.find)
count = blocking(asking.count)
enqueue = blocking(app_queues.enqueue)
enqueue_many = blocking(app_queues.enqueue_many)
cancel = blocking(asking.cancel)
delete = blocking(deleting.delete)
context = _context.snapshot


def _site_of(app: Operon) -> "_Site":
    """Serve an app by `operon.http`, which brings FastAPI: so it is imported for the first app that is served."""
    from operon.http import Site

    return Site.of(app)


Operon.site_of = _site_of
