"""`operon migrate`."""

from __future__ import annotations

from operon.app.stores import store_for
from operon.cli.complaint import Complaint
from operon.cli.database import Database, choose
from operon.cli.program import Target
from operon.cli.screen import say
from operon.errors import ForeignDatabase


def command(app: Target = None, /, *, database: Database = None, adopt: bool = False) -> None:
    """Bring the database up to date; safe while others run, and when there is nothing to do.

    Args:
        adopt: Accept a database that is a copy or a restore, and go on with its work here.
    """
    store = store_for(choose(database, app).database)
    try:
        store.open(migrate=True, adopt=adopt)
        say(f"{store.url} is up to date.")
    except ForeignDatabase as error:
        raise Complaint(f"{error} That is: operon migrate --adopt.", 1) from None
    finally:
        store.close()
