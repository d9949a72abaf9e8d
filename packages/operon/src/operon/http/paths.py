"""Where an app's endpoints hang, as the client sees it: below mounts, prefixes of routers, and the path of a proxy.

Starlette's `url_for` asks the outermost router, which does not know the routes of an app that is mounted, and takes the
first of two apps that have the same endpoint.
"""

from __future__ import annotations

from typing import cast
from urllib.parse import quote

from starlette.routing import Route
from starlette.types import Scope

PLAIN = "/!$&'()*+,;=:@~"
"""What stands for itself in a path, beside letters, digits and `-._`."""


def prefix(scope: Scope) -> str:
    """Give what stands before the path of the route that a request has reached, as it is spelled in a URL."""
    path, root, route = scope["path"], scope.get("root_path", ""), cast("Route", scope["route"])
    given = scope["path_params"].items()
    inside = sum(str(value).count("/") for name, value in given if name in route.param_convertors)
    before = path.rsplit("/", route.path_format.count("/") + inside)[0]
    if not path.startswith(f"{root}/"):  # the proxy has taken it away, and the server has not put it back
        before = root.rstrip("/") + before
    # A path that begins with two slashes would be read as a host.
    return "/%2F" + quote(before[2:], PLAIN) if before.startswith("//") else quote(before, PLAIN)
