"""Objects found by the name that a config gives them: engines, attention kernels and model pipelines."""

from __future__ import annotations

from importlib import import_module
from typing import Generic, TypeVar

from ocr_flops.errors import SpecError

T = TypeVar("T")


class Registry(Generic[T]):
    """Objects by name; NAME is looked for in the module NAME of a package the first time it is asked for.

    Args:
        kind: what the objects are, for messages: "engine".
        package: the package with a module for each.
    """

    def __init__(self, kind: str, package: str):
        self.kind = kind
        self.package = package
        self._known: dict[str, T] = {}

    def add(self, name: str, thing: T) -> None:
        """Makes an object known by a name; a later one takes the place of an earlier one."""
        self._known[name] = thing

    def find(self, name: str) -> T:
        """The object called name.

        Raises:
            SpecError: there is none.
        """
        if name not in self._known and name.isidentifier():
            try:
                import_module(f"{self.package}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{self.package}.{name}":
                    raise
        if name not in self._known:
            raise SpecError(f"{self.kind}: no class is called {name!r}; {self.package} needs a module {name} that defines one")
        return self._known[name]
