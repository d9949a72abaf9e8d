"""From the header `Idempotency-Key` to a workflow's id, and from an id to the opaque end of a URL and back."""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b
from urllib.parse import quote

from starlette.exceptions import HTTPException

from operon.core.ids import LONGEST

PREFIX = "http:"
"""Begins the id of every workflow that a request started; the program's own workflows are out of a client's reach."""
QUOTED = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"(?:;[\x20-\x7e]*)?')
PLAIN = re.compile(r"[!#-+\--:<-\[\]-~]+")


def parse(fields: Sequence[str]) -> str | None:
    """Read the header: a quoted string, as draft-ietf-httpapi-idempotency-key-header-07 has it, or a plain token.

    Raises:
        HTTPException: 400, it is neither, or empty, or too long, or there are several.
    """
    if not fields:
        return None
    if len(fields) > 1:
        raise HTTPException(400, "A request has one Idempotency-Key.")
    field = fields[0].strip()
    if (quoted := QUOTED.fullmatch(field)) is not None:
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    elif PLAIN.fullmatch(field):
        key = field
    else:
        raise HTTPException(400, 'Idempotency-Key is a quoted string or a plain token, such as "8e03978e-40d5".')
    if not 0 < len(key) <= LONGEST:
        raise HTTPException(400, f"Idempotency-Key has 1 to {LONGEST} characters.")
    return key


def workflow_id(route: str, user: str | None, key: str) -> str:
    """Give the id of the one workflow of a route, a user and a key; no other three give it.

    Args:
        route: method and path template: `"POST /transfers"`.
        user: whose key it is; None and "" are nobody.
        key: what the client sent.
    """
    name = PREFIX + ":".join(quote(part, safe="/{} @+,=!") for part in (route, user or "", key))
    if len(name) <= LONGEST:
        return name
    # A route begins with its method, so nothing else begins with "~".
    return f"{PREFIX}~{blake2b(name.encode(), digest_size=32).hexdigest()}"


def token(workflow_id: str) -> str:
    """Spell an id for a URL."""
    return urlsafe_b64encode(workflow_id.encode()).decode().rstrip("=")


def named(token: str) -> str:
    """Read the id in a URL.

    Raises:
        HTTPException: 404, it is no id of a request's workflow.
    """
    try:
        name = urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
    except (binascii.Error, UnicodeError, ValueError):
        name = ""
    if not name.startswith(PREFIX):
        raise HTTPException(404)
    return name
