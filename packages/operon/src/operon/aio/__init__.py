"""Every verb, to be awaited: `await aio.sleep(1)`; and `aio.call`, which runs blocking declarations from async code."""

from __future__ import annotations

from typing import cast

from operon.aio import schedules
from operon.app import calling
from operon.app import queues as app_queues
from operon.app import verbs as app_verbs
from operon.app.overloads import AsyncGather, AsyncRetrieve
from operon.app.verbs import awaited
from operon.core import asking, deleting, results, verbs
from operon.core import context as _context

__all__ = [
    "call",
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
    "retrieve",
    "rng",
    "schedules",
    "sleep",
    "start",
    "steps",
    "uuid4",
]

sleep = awaited(verbs.sleep)
now = awaited(verbs.now)
rng = awaited(verbs.rng)
uuid4 = awaited(verbs.uuid4)
start = awaited(app_verbs.start)
gather: AsyncGather = awaited(results.gather)
retrieve = cast("AsyncRetrieve", awaited(app_verbs.retrieve))
describe = awaited(asking.describe)
steps = awaited(asking.steps)
find = awaited(asking.find)
count = awaited(asking.count)
enqueue = awaited(app_queues.enqueue)
enqueue_many = awaited(app_queues.enqueue_many)
cancel = awaited(asking.cancel)
delete = awaited(deleting.delete)
call = calling.call
context = _context.snapshot
