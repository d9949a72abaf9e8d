"""Remember nothing beyond this process: what every command means, in plain Python. Must not know any database."""

from operon.stores.memory.clock import Clock
from operon.stores.memory.store import MemoryStore
from operon.stores.memory.tables import Tables, Workflow

__all__ = ["Clock", "MemoryStore", "Tables", "Workflow"]
