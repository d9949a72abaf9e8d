"""Operon on a FastAPI application that is there already: `attach(app, api)`."""

from operon.http.site import attach

__all__ = ["attach"]
