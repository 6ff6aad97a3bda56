"""Plugins read as source: the same options as when they run, and their faults without running them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from vqabench import options, plugins
from vqabench.api import Backbone, Recipe
from vqabench.plugin_source import ClassSource, SourceError, read_class, read_fields

INSTALLED = [plugin for group in plugins.KINDS for plugin in plugins.available(group).plugins]
COUNTER = itertools.count()


@pytest.mark.parametrize("plugin", INSTALLED, ids=lambda plugin: plugin.qualified)
def test_source_says_what_the_class_says(plugin: plugins.Plugin) -> None:
    kind = plugins.load(plugin)
    source = read_class(plugin.target)
    declared = options.options_of(kind)
    assert list(source.options) == list(declared)
    for name, choices in source.options.items():
        shown = options.describe(declared[name].annotation)
        assert all(choice in shown for choice in choices)
        assert ("|" in shown) == (len([one for one in choices if one != "none"]) > 1)
    assert ([source.base_parameter] if source.base_parameter else []) == options.base_parameters(kind)
    if issubclass(kind, Backbone) and source.base_parameter:
        assert source.default_base == kind.default_base


def test_fields_of_the_recipe_are_read_with_their_choices() -> None:
    declared = options.fields_of(Recipe)
    read = read_fields("vqabench.api", "Recipe")
    assert list(read) == list(declared)
    assert read["optimizer"] == tuple(options.describe(declared["optimizer"].annotation).split(" | "))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of an empty package that can be found."""
    name = f"source_of_plugin_{next(COUNTER)}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    return name


MODEL = "from vqabench.api import Backbone\nclass Model(Backbone):\n    '''A model.'''\n"


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({}, "there is no module PACKAGE.model"),
        ({"model": "class Other: ...\n"}, "PACKAGE.model defines no Model"),
        ({"model": "if 1:\n    x = 2\n"}, "PACKAGE.model defines no Model"),
        ({"model": "class Model(:\n"}, "model.py, line 1: does not parse"),
        ({"model": "\0"}, "does not parse"),
        ({"model": "x = '\xe9'\n# coding: nonsense\n"}, "PACKAGE.model defines no Model"),
        ({"model": f"import a_package_that_is_missing\n{MODEL}"}, "line 1: it needs the package a_package_that_is"),
        (
            {"model": f"from a_package_that_is_missing.inner import x\n{MODEL}"},
            "needs the package a_package_that_is",
        ),
        ({"model": f"from PACKAGE.other import x\n{MODEL}"}, "there is no module PACKAGE.other"),
        (
            {"model": f"from .other import x\n{MODEL}", "other": "import a_package_that_is_missing"},
            "other.py, line 1",
        ),
        ({"model": f"raise RuntimeError('no')\n{MODEL}"}, "line 1: importing it raises an error"),
        ({"__init__": "import a_package_that_is_missing", "model": MODEL}, "__init__.py, line 1: it needs"),
        ({"model": "from .other import Model\n", "other": "class Another: ...\n"}, ""),
    ],
    ids=str,
)
def test_a_fault_is_found_in_the_source(
    package: str, tmp_path: Path, sources: dict[str, str], message: str
) -> None:
    for name, text in sources.items():
        (tmp_path / package / f"{name}.py").write_text(text.replace("PACKAGE", package), encoding="utf-8")
    if not message:
        assert read_class(f"{package}.model:Model") == ClassSource()
        return
    with pytest.raises(SourceError) as error:
        read_class(f"{package}.model:Model")
    assert message.replace("PACKAGE", package) in str(error.value)


@pytest.mark.parametrize(
    "source",
    [
        MODEL,
        f"try:\n    import a_package_that_is_missing\nexcept ImportError:\n    pass\n{MODEL}",
        "from vqabench.api import *\n",
        "from vqabench import api\nModel = type('Model', (api.Backbone,), {})\n",
        "def __getattr__(name):\n    return None\n",
        "if True:\n    class Model: ...\n",
        "import os\nfrom . import model as Model\n",
        "from .model import Model\n",
    ],
    ids=str,
)
def test_what_reading_cannot_follow_is_taken_to_be_sound(package: str, tmp_path: Path, source: str) -> None:
    (tmp_path / package / "model.py").write_text(source)
    assert read_class(f"{package}.model:Model").options == {}


def test_a_compiled_module_is_taken_to_be_sound() -> None:
    assert read_class("math:Model") == ClassSource()


def test_options_are_found_through_imports_and_bases(package: str, tmp_path: Path) -> None:
    (tmp_path / package / "base.py").write_text(
        "from typing import Literal\nKind = Literal['a', 'b']\n"
        "class Base:\n    api_version = 3\n    default_base = 'updn'\n"
        "    def __init__(self, spec, inner: 'Backbone', *,"
        " kind: Kind = 'a', sure: bool | None = None, n: int = 1): ...\n"
    )
    (tmp_path / package / "__init__.py").write_text("from .model import Model as Public\n")
    (tmp_path / package / "model.py").write_text("from .base import Base\nclass Model(Base): ...\n")
    assert read_class(f"{package}:Public") == ClassSource(
        {"kind": ("a", "b"), "sure": ("true", "false", "none"), "n": ()}, "inner", "updn", 3
    )
