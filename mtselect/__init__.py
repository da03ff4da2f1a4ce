"""Select the sentence pairs worth finetuning a translation LLM on, and prove the choice in MLflow."""

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtselect.api import load_set, score, select

__all__ = ["load_set", "score", "select"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """The functions, which load nothing before they are asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mtselect import api

    return getattr(api, name)


class _Package(ModuleType):
    """Keeps `mtselect.select` the function when the command of that name is imported: a submodule would take its place."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
