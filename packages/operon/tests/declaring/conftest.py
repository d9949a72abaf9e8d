"""Apps on every database, as the engine's tests have them."""

from engine.conftest import database, make

__all__ = ["database", "make"]
