"""Code of the user's classes, while the codec calls it: validators, serializers, `__post_init__`, properties.

It is called whenever a value is recorded, proved or read, in a replay at other moments than in the first run; so it
asks nothing of Operon meanwhile.
"""

from __future__ import annotations

from contextvars import ContextVar, Token

from operon.errors import NotInWorkflow

_called: ContextVar[bool] = ContextVar("operon_foreign", default=False)


class Calling:
    """Call code of the user's classes: `with Calling(): ...`."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        """Begin."""
        self._token: Token[bool] = _called.set(True)

    def __exit__(self, *_failure: object) -> None:
        """End."""
        _called.reset(self._token)


def refuse_verbs() -> None:
    """Refuse what is asked of Operon by code that the codec calls.

    Raises:
        NotInWorkflow: this is such code.
    """
    if _called.get():
        raise NotInWorkflow(
            "A step, a workflow or a verb of Operon was called by code that Operon itself calls to record or to read a "
            "value (a validator, a serializer, __post_init__, a property). How often that happens is no part of a "
            "workflow, and a replay does it at other moments. Call it where the value is made."
        )
