"""Read a plugin's options from its source, without running any of it.

Shell completion, hints and `vqabench doctor` need a plugin's options, or whether it can work at all, within
milliseconds and without importing torch or the plugin.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.machinery
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

MOST_FOLLOWED = 20
"""Modules that a name is followed through: enough for any package, few enough to end a circle."""


class SourceError(Exception):
    """The source shows that the plugin cannot be loaded."""


@dataclass(frozen=True)
class ClassSource:
    """What can be read from the source of a plugin's class."""

    options: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Option -> its choices, if it has any."""
    base_parameter: str | None = None
    """The parameter that receives another backbone."""
    default_base: str | None = None
    api_version: object = None
    """None if the class states none."""


@dataclass(frozen=True)
class _Module:
    name: str
    tree: ast.Module
    is_package: bool


@dataclass(frozen=True)
class _Class:
    module: _Module
    node: ast.ClassDef


def read_class(target: str) -> ClassSource:
    """Read the class of an entry point, `module:Class`.

    Raises SourceError if the source shows that it cannot be loaded. What cannot be read as source, such as a
    compiled module, counts as sound and has no options.
    """
    module_name, _, attribute = target.partition(":")
    _check_imports(module_name)
    module = _read_module(module_name)
    if module is None:
        return ClassSource()
    found = _find_class(module, attribute)
    if found is None:
        if _may_define(module, attribute):
            return ClassSource()
        raise SourceError(f"{module_name} defines no {attribute}")
    line = list(_with_bases(found))
    options, base = _read_parameters(line)
    default_base = _read_constant(line, "default_base")
    return ClassSource(
        options, base, default_base if isinstance(default_base, str) else None, _read_constant(line, "api_version")
    )


def read_fields(module_name: str, class_name: str) -> dict[str, tuple[str, ...]]:
    """Return the fields of a dataclass, each with its choices, if it has any."""
    module = _read_module(module_name)
    found = _find_class(module, class_name) if module else None
    if module is None or found is None:
        return {}
    return {
        line.target.id: _read_choices(line.annotation, module)
        for line in found.node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    }


def _check_imports(module_name: str) -> None:
    """Check that importing a module can succeed, as far as its source and that of its own package show.

    Raises SourceError if a module is missing, does not parse, needs a package that is not installed, or raises.
    """
    root = module_name.partition(".")[0]
    waiting, seen = [module_name], set[str]()
    while waiting:
        parts = waiting.pop().split(".")
        for name in (".".join(parts[:depth]) for depth in range(1, len(parts) + 1)):
            if name in seen:
                continue
            seen.add(name)
            spec = _find_spec(name)
            if spec is None:
                raise SourceError(f"there is no module {name}")
            module = _read_module(name)
            for statement in module.tree.body if module else []:
                where = f"{spec.origin}, line {statement.lineno}"
                if isinstance(statement, ast.Raise):
                    raise SourceError(f"{where}: importing it raises an error")
                imports: list[str] = []
                if isinstance(statement, ast.Import):
                    imports = [alias.name for alias in statement.names]
                elif isinstance(statement, ast.ImportFrom) and module:
                    imports = [_absolute(module, statement)]
                for imported in imports:
                    package = imported.partition(".")[0]
                    if package == root:
                        waiting.append(imported)
                    elif _find_spec(package) is None:
                        raise SourceError(f"{where}: it needs the package {package}, which is not installed")


def _find_spec(name: str) -> importlib.machinery.ModuleSpec | None:
    """Find a module without importing the packages around it, as `importlib.util.find_spec` would."""
    path: list[str] | None = None
    parts = name.split(".")
    spec = None
    for depth in range(1, len(parts) + 1):
        spec = None
        for finder in sys.meta_path:
            with contextlib.suppress(Exception):  # another package's finder may fail
                spec = finder.find_spec(".".join(parts[:depth]), path)
            if spec is not None:
                break
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or [])
    return spec


def _read_module(name: str) -> _Module | None:
    """Parse a module; None if it has no Python source. Raises SourceError if that does not parse."""
    spec = _find_spec(name)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    try:
        tree = _parse(spec.origin, Path(spec.origin).stat().st_mtime_ns)
    except OSError as error:
        raise SourceError(f"{spec.origin}: cannot be read: {error.strerror}") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise SourceError(f"{spec.origin}{line}: does not parse: {getattr(error, 'msg', error)}") from error
    return _Module(name, tree, spec.submodule_search_locations is not None)


@cache
def _parse(file: str, changed: int) -> ast.Module:
    """Parse a file; `changed`, its time stamp, lets an edited one be read again."""
    return ast.parse(Path(file).read_bytes(), file)


def _find_class(module: _Module | None, attribute: str, followed: int = 0) -> _Class | None:
    """Find a class by its name, `Class` or `Outer.Class`, through the imports of its module."""
    if module is None or followed > MOST_FOLLOWED:
        return None
    first, _, rest = attribute.partition(".")
    for statement in reversed(module.tree.body):
        if isinstance(statement, ast.ClassDef) and statement.name == first:
            node = statement
            for name in filter(None, rest.split(".")):
                inner = [one for one in node.body if isinstance(one, ast.ClassDef) and one.name == name]
                if not inner:
                    return None
                node = inner[-1]
            return _Class(module, node)
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                if (alias.asname or alias.name) == first:
                    source = _read_module(_absolute(module, statement))
                    return _find_class(source, alias.name + (f".{rest}" if rest else ""), followed + 1)
    return None


def _absolute(module: _Module, statement: ast.ImportFrom) -> str:
    """Return the absolute name of the module that an import names."""
    if statement.level == 0:
        return statement.module or ""
    around = module.name.split(".")
    package = around[: len(around) - statement.level + module.is_package]
    return ".".join([*package, *filter(None, [statement.module])])


def _may_define(module: _Module, attribute: str) -> bool:
    """Return whether a module may define a name in a way that reading cannot follow."""
    wanted = {attribute.partition(".")[0], "__getattr__", "*"}
    for node in ast.walk(module.tree):
        names = [getattr(node, "name", None), getattr(node, "id", None)]
        if isinstance(node, ast.Import | ast.ImportFrom):
            names += [alias.asname or alias.name for alias in node.names]
        if wanted.intersection(names):
            return True
    return False


def _with_bases(found: _Class, followed: int = 0) -> Iterator[_Class]:
    """Yield a class and those it is derived from, first bases first, if they are named without a dot."""
    yield found
    for base in found.node.bases:
        if isinstance(base, ast.Name) and followed < MOST_FOLLOWED:
            other = _find_class(found.module, base.id)
            if other is not None:
                yield from _with_bases(other, followed + 1)


def _read_parameters(line: list[_Class]) -> tuple[dict[str, tuple[str, ...]], str | None]:
    """Return the options of the first `__init__`, and the parameter that receives a backbone."""
    for found in line:
        for node in found.node.body:
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                annotations = {one.arg: one.annotation for one in (*node.args.args, *node.args.kwonlyargs)}
                bases = [
                    name
                    for name, annotation in annotations.items()
                    if annotation is not None and ast.unparse(annotation).strip("'\"").endswith("Backbone")
                ]
                names = [one.arg for one in node.args.kwonlyargs if one.arg not in bases]
                options = {name: _read_choices(annotations[name], found.module) for name in names}
                return options, bases[0] if bases else None
    return {}, None


def _read_choices(annotation: ast.expr | None, module: _Module) -> tuple[str, ...]:
    """Return the values of a Literal, or of a bool, in an annotation."""
    if isinstance(annotation, ast.Name):
        if annotation.id == "bool":
            return ("true", "false")
        for statement in module.tree.body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == annotation.id:
                return _read_choices(statement.value, module)
    if isinstance(annotation, ast.BinOp):
        return _read_choices(annotation.left, module) + _read_choices(annotation.right, module)
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value).endswith("Literal"):
        inner = annotation.slice
        values = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        return tuple(str(value.value) for value in values if isinstance(value, ast.Constant))
    return ("none",) if isinstance(annotation, ast.Constant) and annotation.value is None else ()


def _read_constant(line: list[_Class], name: str) -> object:
    """Return the value of a class attribute that is a plain constant, else None."""
    for one in line:
        for node in one.node.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            value = getattr(node, "value", None)
            if isinstance(value, ast.Constant) and any(
                isinstance(target, ast.Name) and target.id == name for target in targets
            ):
                return value.value
    return None
