"""HTTP: an app's endpoints, served once and only once per request. FastAPI parses, validates and documents."""

from operon.errors import DeclarationError

try:
    from operon.http.site import Site as Site
except ModuleNotFoundError as error:
    if error.name not in {"fastapi", "starlette", "pydantic"}:
        raise
    raise DeclarationError("Serving HTTP needs FastAPI and uvicorn: pip install 'operon-py[http]'.") from error
