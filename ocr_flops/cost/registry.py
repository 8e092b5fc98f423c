"""Objects found by the name that a config gives them: engines, attention kernels and model pipelines."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Generic, TypeVar

from ocr_flops.errors import SpecError

T = TypeVar("T")


class Registry(Generic[T]):
    """Objects by name; the module NAME of a package is imported when NAME is looked for, and adds its object.

    Args:
        kind: what the objects are, for messages: "engine".
        package: the package with a module for each object, beside `base`.
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
        if name not in self._known:
            modules = [module.name for module in iter_modules(import_module(self.package).__path__) if module.name != "base"]
            if name in modules:
                import_module(f"{self.package}.{name}")
            if name not in self._known:
                names = ", ".join(sorted({*modules, *self._known}))
                raise SpecError(f"{self.kind}: {name!r} is not one of {names}, which have a class in {self.package}")
        return self._known[name]
