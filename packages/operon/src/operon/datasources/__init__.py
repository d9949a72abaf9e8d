"""The user's transaction: begin, run, record, commit; exactly once by the record in the same commit.

It must not know the engine, nor which store keeps the journal.
"""

from operon.datasources.datasource import Datasource
from operon.datasources.transact import transact

__all__ = ["Datasource", "transact"]
