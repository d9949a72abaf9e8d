"""Remember nothing beyond this process: what every command means, in plain Python. Must not know any database."""

from operon.stores.memory.clocks import Clock
from operon.stores.memory.store import MemoryStore, Workflow

__all__ = ["Clock", "MemoryStore", "Workflow"]
