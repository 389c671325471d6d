"""The SDK's import, which a worker pays for at every start."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def import_runpod() -> ModuleType:
    """The SDK, without what a worker never uses of it and would pay for at every start.

    Its command line imports paramiko with a hundred modules and two readers of TOML, and its debugger asks cpuinfo for
    the processor's name, which takes as long as the rest together (measured). All come where something does use them.
    """
    stand_ins = [_NoProcessor("cpuinfo"), _Later("paramiko"), _Later("tomli"), _Later("tomlkit")]
    left_out = {stand_in.__name__: stand_in for stand_in in stand_ins if stand_in.__name__ not in sys.modules}
    sys.modules |= left_out
    try:
        return import_module("runpod")
    finally:
        for name, stand_in in left_out.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]


class _Later(ModuleType):
    """A module that is imported when something is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:  # the SDK's import goes on, and it is asked already
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


class _NoProcessor(_Later):
    """cpuinfo without an answer to what the SDK asks at import; it says itself that the name is missing."""

    def get_cpu_info(self) -> dict[str, Any]:
        return {}
