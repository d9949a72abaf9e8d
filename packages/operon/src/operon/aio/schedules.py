"""The verbs about schedules, to be awaited: `from operon.aio import schedules`, then `await schedules.create(...)`."""

from operon.app import schedules as verbs
from operon.app.verbs import awaited

__all__ = ["backfill", "create", "delete", "describe", "list", "pause", "resume", "trigger"]

create = awaited(verbs.create)
trigger = awaited(verbs.trigger)
backfill = awaited(verbs.backfill)
pause = awaited(verbs.pause)
resume = awaited(verbs.resume)
delete = awaited(verbs.delete)
describe = awaited(verbs.describe)
list = awaited(verbs.listing)  # noqa: A001 - the contract's name
