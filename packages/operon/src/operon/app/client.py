"""A client: the verbs as methods, for a process without the app."""

from __future__ import annotations


class Client: ...


class AsyncClient: ...
