"""The verbs about schedules, blocking: `from operon import schedules`, then `schedules.create(...)`."""

from operon.app import schedules as verbs
from operon.app.verbs import blocking

__all__ = ["backfill", "create", "delete", "describe", "list", "pause", "resume", "trigger"]

create = blocking(verbs.create)
trigger = blocking(verbs.trigger)
backfill = blocking(verbs.backfill)
pause = blocking(verbs.pause)
resume = blocking(verbs.resume)
delete = blocking(verbs.delete)
describe = blocking(verbs.describe)
list = blocking(verbs.listing)  # noqa: A001 - the contract's name
