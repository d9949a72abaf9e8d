"""Which classes a row may name; it must not import anything, nor run any code of the classes it looks at."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCRIPT = frozenset({"__main__", "__mp_main__"})
"""The names of the program's own module, here and in processes that multiprocessing starts."""


@dataclass(frozen=True, slots=True)
class Trust:
    """The classes that one function's records may name: its own package's, named packages', and those it mentions.

    `home` is the function's module; None trusts every package that is already imported, and is for writing only.
    """

    home: str | None
    packages: frozenset[str] = frozenset()
    mentioned: Mapping[str, type] | None = None
    bases: tuple[type[BaseException], ...] = ()
    _names: dict[type, str] = field(default_factory=dict[type, str], init=False, repr=False, compare=False)

    def name(self, cls: type) -> str | None:
        """Return the name under which `find` gives exactly this class, or None."""
        if cls not in self._names and self.find(class_name(cls)) is cls:
            self._names[cls] = class_name(cls)
        return self._names.get(cls)

    def find(self, name: str) -> type | None:
        """Return the trusted class of this name, or None.

        Nothing is imported and no attribute is computed: only what lies in a loaded module, under its own name.
        """
        if self.mentioned and name in self.mentioned:
            return self.mentioned[name]
        module, _, qualname = name.partition(":")
        cls = _walk(self._module(module), qualname)
        if cls is None or class_name(cls) != name:
            return None
        return cls if self._trusts(module) or (self.bases and issubclass(cls, self.bases)) else None

    def _trusts(self, module: str) -> bool:
        package = _package(module)
        return self.home is None or package in self.packages or (bool(self.home) and package == self._home_package)

    @property
    def _home_package(self) -> str:
        return _package(_main_name() if self.home in _SCRIPT else self.home or "")

    def _module(self, name: str) -> ModuleType | None:
        """The script's module has two names; the one it was recorded under by another process is found as well."""
        if name == _main_name() and (self.home in _SCRIPT or name not in sys.modules):
            return sys.modules.get("__main__")
        return sys.modules.get(name)


def class_name(cls: type) -> str:
    """Return `module:qualname`; a script's classes carry the name that importing the script would give them."""
    module = _main_name() if cls.__module__ in _SCRIPT else cls.__module__
    return f"{module}:{cls.__qualname__}"


def _package(module: str) -> str:
    return module.partition(".")[0]


def _main_name() -> str:
    return _name_to_import(sys.modules["__main__"])


@lru_cache(maxsize=8)
def _name_to_import(main: ModuleType) -> str:
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else "__main__"


def _walk(module: ModuleType | None, qualname: str) -> type | None:
    found: object = module
    for part in qualname.split("."):
        if not isinstance(found, ModuleType | type):
            return None
        found = object.__getattribute__(found, "__dict__").get(part)
    return found if isinstance(found, type) else None
