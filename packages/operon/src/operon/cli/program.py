"""The user's program: which `MODULE:APP` is meant, and importing it."""

from __future__ import annotations

import importlib
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Final

from cyclopts import Parameter

from operon.app import Operon
from operon.cli import configuration
from operon.cli.complaint import Complaint

USUAL: Final = ("app", "main")

Target = Annotated[
    str | None,
    Parameter(
        name="app",
        env_var="OPERON_APP",
        help="MODULE:APP; else [tool.operon] app of pyproject.toml, else the app of app.py or main.py.",
    ),
]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an app is: a module, its attribute if that was said, and the directory to import from."""

    module: str
    attribute: str | None
    directory: Path

    def __str__(self) -> str:
        return f"{self.module}:{self.attribute}" if self.attribute else self.module


def locate(target: str | None) -> Place:
    """Say which app is meant.

    Raises:
        Complaint: nothing says so.
    """
    if target is None and (configured := configuration.settings().get("app")):
        return _parse(str(configured), configuration.project() or Path.cwd())
    if target is not None:
        return _parse(target, Path.cwd())
    there = [name for name in USUAL if Path(f"{name}.py").is_file()]
    if not there:
        raise Complaint(
            "No app was named, and there is no app.py or main.py here: "
            'write `operon COMMAND module:app`, or app = "module:app" under [tool.operon] in pyproject.toml.'
        )
    return Place(there[0], None, Path.cwd())


def load(target: str | None) -> Operon:
    """Import the app that is meant.

    Raises:
        Complaint: it cannot be found, or imported.
    """
    place = locate(target)
    sys.path.insert(0, str(place.directory))
    configuration.prepare()
    module = _import(place)
    if place.attribute is None:
        return _only(place, module)
    found: Any = module
    for part in place.attribute.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Operon):
        what = "is not there" if found is None else f"is a {type(found).__name__}"
        raise Complaint(f"{place} {what}, and an Operon app is needed{_instead(place, module)}.")
    return found


def _parse(target: str, directory: Path) -> Place:
    module, _, attribute = target.partition(":")
    module = module.removeprefix("./").removesuffix(".py").replace("/", ".")
    if not all(part.isidentifier() for part in module.split(".")):
        raise Complaint(f"{target!r} names no app: write module:app, such as app:app.")
    return Place(module, attribute or None, directory)


def _import(place: Place) -> ModuleType:
    try:
        return importlib.import_module(place.module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place.module}.".startswith(f"{error.name}."):
            raise Complaint(_failed(place, error), 1) from None
        raise Complaint(f"There is no module {place.module!r} in {place.directory}.") from None
    except Exception as error:
        raise Complaint(_failed(place, error), 1) from None


def _failed(place: Place, error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    last = next((frame for frame in reversed(frames) if frame.filename.startswith(str(place.directory))), None)
    where = f" ({Path(last.filename).name}, line {last.lineno})" if last else ""
    return f"{place} cannot be imported: {type(error).__name__}: {error}{where}"


def _only(place: Place, module: ModuleType) -> Operon:
    apps = _apps(module)
    if len(set(apps.values())) != 1:
        found = ", ".join(f"{place.module}:{name}" for name in apps) or "no Operon app in it"
        raise Complaint(f"Name one app of {place.module}: found {found}.")
    return next(iter(apps.values()))


def _apps(module: ModuleType) -> dict[str, Operon]:
    return {name: value for name, value in vars(module).items() if isinstance(value, Operon)}


def _instead(place: Place, module: ModuleType) -> str:
    names = ", ".join(f"{place.module}:{name}" for name in _apps(module))
    return f"; there is {names}" if names else ""
