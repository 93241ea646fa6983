"""The code of a changed module: exchanged in the functions that are loaded, or imported anew."""

from __future__ import annotations

import ast
import gc
import importlib.abc
import importlib.util
import inspect
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

Pair = tuple[CodeType, CodeType]


class Functions:
    """The functions of a module that are loaded, wherever they were imported to."""

    def __init__(self, module: str) -> None:
        self.file = str(Path(module).resolve())
        self.original = compile(Path(module).read_text(encoding="utf-8"), self.file, "exec")
        self.loaded: dict[tuple[str, int], list[FunctionType]] = {}
        for each in gc.get_objects():
            if type(each) is FunctionType and each.__code__.co_filename == self.file:
                self.loaded.setdefault(_place(each.__code__), []).append(each)

    def changed(self, tree: ast.Module) -> list[Pair] | None:
        """The functions that a change concerns, before and after; None when it takes effect at import."""
        return _changed_functions(self.original, compile(tree, self.file, "exec"))

    def patches(self, pairs: list[Pair]) -> list[tuple[FunctionType, CodeType]] | None:
        """The loaded functions and their new code; None where that code does not fit, or none is loaded."""
        found = [(function, new) for old, new in pairs for function in self.loaded.get(_place(old), [])]
        fits = all(len(f.__code__.co_freevars) == len(code.co_freevars) for f, code in found)
        return found if fits and {id(code) for _, code in found} == {id(new) for _, new in pairs} else None


def _place(code: CodeType) -> tuple[str, int]:
    return code.co_qualname, code.co_firstlineno


def _changed_functions(old: CodeType, new: CodeType) -> list[Pair] | None:
    """The outermost functions that differ; None when the body of a module or class does."""
    if old == new:
        return []
    if old.co_flags & inspect.CO_OPTIMIZED:
        return [(old, new)]
    if old.co_code != new.co_code or _values(old) != _values(new) or old.co_names != new.co_names:
        return None
    parts = [_changed_functions(*pair) for pair in zip(_codes(old), _codes(new), strict=True)]
    return None if None in parts else [pair for part in parts for pair in part or []]


def _codes(code: CodeType) -> list[CodeType]:
    return [const for const in code.co_consts if isinstance(const, CodeType)]


def _values(code: CodeType) -> list[str]:
    return [repr(const) for const in code.co_consts if not isinstance(const, CodeType)]


class ChangedModule(importlib.abc.MetaPathFinder):
    """Finds one module, with changed code."""

    def __init__(self, module: str, tree: ast.Module) -> None:
        self.name, self.file = module.removesuffix(".py").replace("/", "."), str(Path(module).resolve())
        self.code = compile(tree, self.file, "exec")

    def find_spec(
        self, name: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(
            name, self.file, loader=_Loader(name, self.file, self.code)
        )


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self.code = code

    def get_code(self, fullname: str) -> CodeType:
        return self.code
