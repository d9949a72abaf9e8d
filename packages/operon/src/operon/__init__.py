"""Operon: durable execution on the database you already have. This module lists the blocking verbs.

Nouns are declared, verbs are functions, options go in `.using()`. `operon.aio` has every verb, to be awaited.
"""

from operon import aio as aio
from operon.app import Operon as Operon
from operon.app import Routes as Routes
from operon.app import verbs as app_verbs
from operon.app.client import AsyncClient as AsyncClient
from operon.app.client import Client as Client
from operon.app.declarations import Call as Call
from operon.app.gathering import Gather as _Gather
from operon.app.remote import remote as remote
from operon.app.verbs import blocking
from operon.core import asking, results, verbs
from operon.core import context as _context
from operon.core.codec import Secret as Secret
from operon.core.results import Handle as Handle
from operon.errors import OperonError as OperonError
from operon.types import Context as Context
from operon.types import StepRecord as StepRecord
from operon.types import User as User
from operon.types import WorkflowRecord as WorkflowRecord

sleep = blocking(verbs.sleep)
now = blocking(verbs.now)
rng = blocking(verbs.rng)
uuid4 = blocking(verbs.uuid4)
start = blocking(app_verbs.start)
gather: _Gather = blocking(results.gather)
retrieve = blocking(app_verbs.retrieve)
describe = blocking(asking.describe)
steps = blocking(asking.steps)
find = blocking(asking.find)
count = blocking(asking.count)
cancel = blocking(asking.cancel)
context = _context.snapshot
