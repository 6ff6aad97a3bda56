"""Plugins are found from metadata alone, loaded one at a time, and never spoil one another."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.plugin_installation import install_fixture, run_python
from vqabench import plugins
from vqabench.api import API_VERSION, Backbone, Loss, Transform
from vqabench.errors import PluginError
from vqabench.plugins import BACKBONES, LOSSES, Plugin, available, find, load
from vqabench.testing import assert_conforms

FIXTURES = ("words_only", "broken", "clash", "other_api")
HEADER = f"[{BACKBONES}]\n"
Write = Callable[..., Path]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Install each fixture once, each into a folder of its own."""
    return {name: install_fixture(name, tmp_path_factory.mktemp(name)) for name in FIXTURES}


@pytest.fixture
def on_path(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that puts folders in front of `sys.path`; what they bring is forgotten afterwards."""

    def put(*folders: Path) -> None:
        for folder in reversed(folders):
            monkeypatch.syspath_prepend(str(folder))
            for module in folder.glob("vqabench_*/__init__.py"):
                monkeypatch.setitem(sys.modules, module.parent.name, None)
                monkeypatch.delitem(sys.modules, module.parent.name)

    return put


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes the metadata of a distribution into a folder on `sys.path`."""

    def write_metadata(
        entry_points: str | bytes, name: str = "bad", version: str = "1.0", at: str = "site"
    ) -> Path:
        folder = tmp_path / at / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        text = entry_points.encode() if isinstance(entry_points, str) else entry_points
        (folder / "entry_points.txt").write_bytes(text)
        monkeypatch.syspath_prepend(str(folder.parent))
        return folder

    return write_metadata


def targets(distribution: str = "bad") -> dict[str, str]:
    return {one.name: one.target for one in available(BACKBONES).plugins if one.distribution == distribution}


def test_a_third_party_backbone_is_found_loaded_and_keeps_what_the_api_promises(
    installed: dict[str, Path], on_path: Callable[..., None]
) -> None:
    on_path(installed["words_only"])
    plugin = find(BACKBONES, "words-only")
    target = "vqabench_words_only:WordsOnly"
    assert plugin == Plugin("words-only", BACKBONES, "vqabench-words-only", "0.3.0", target)
    assert_conforms(load(plugin), hidden=7)


def test_listing_imports_no_plugin_and_nothing_heavy(installed: dict[str, Path]) -> None:
    code = (
        "import json, sys; from vqabench.plugins import *\n"
        "found = [one.name for group in (BACKBONES, LOSSES) for one in available(group).plugins]\n"
        "print(json.dumps([found, list(sys.modules)]))"
    )
    done = run_python(code, *installed.values())
    found, modules = json.loads(done.stdout)
    assert {"words-only", "broken", "other-api", "updn", "mask"} <= set(found)
    heavy = {"torch", "numpy", "h5py", "sklearn", "vqabench.api"}
    assert not [one for one in modules if one in heavy or one.startswith("vqabench_")], done.stderr


def test_a_broken_plugin_names_its_distribution_and_cause_in_one_line(
    installed: dict[str, Path], on_path: Callable[..., None]
) -> None:
    on_path(installed["broken"])
    with pytest.raises(PluginError) as caught:
        load(find(BACKBONES, "broken"))
    assert str(caught.value) == (
        "backbone 'broken' of vqabench-broken 0.1.0 cannot be loaded: "
        "RuntimeError: libquestion.so.1: cannot open shared object file "
        f"({installed['broken'] / 'vqabench_broken' / '__init__.py'}, line 3)"
    )
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_broken_plugin_does_not_stop_another(installed: dict[str, Path], on_path: Callable[..., None]) -> None:
    on_path(installed["broken"], installed["words_only"])
    assert issubclass(load(find(BACKBONES, "words-only")), Backbone)
    assert "vqabench_broken" not in sys.modules


def test_two_distributions_with_one_name_need_the_qualified_name(
    installed: dict[str, Path], on_path: Callable[..., None]
) -> None:
    on_path(installed["words_only"], installed["clash"])
    with pytest.raises(PluginError) as caught:
        find(BACKBONES, "words-only")
    assert "vqabench-clash:words-only or vqabench-words-only:words-only" in str(caught.value)
    assert find(BACKBONES, "vqabench-clash:words-only").version == "1.0.0"
    assert find(BACKBONES, "Vqabench_Words.Only:words-only").version == "0.3.0"


def test_a_plugin_for_another_version_of_the_api_is_refused(
    installed: dict[str, Path], on_path: Callable[..., None]
) -> None:
    on_path(installed["other_api"])
    with pytest.raises(PluginError, match="vqabench-other-api") as caught:
        load(find(BACKBONES, "other-api"))
    for message in ("version 99", f"has {API_VERSION};", "install versions"):
        assert message in str(caught.value)


@pytest.mark.parametrize(("group", "kind"), [(BACKBONES, "backbone"), (LOSSES, "loss")])
def test_an_unknown_name_is_answered_with_the_nearest_and_all(group: str, kind: str) -> None:
    name = "updm" if kind == "backbone" else "rescal"
    with pytest.raises(PluginError) as caught:
        find(group, name)
    nearest = "updn" if kind == "backbone" else "rescale"
    assert f"unknown {kind} '{name}': did you mean '{nearest}'? valid:" in str(caught.value)


def test_an_unknown_distribution_is_not_ignored() -> None:
    with pytest.raises(PluginError, match=r"unknown backbone .somebody:updn.: .* somebody is not installed"):
        find(BACKBONES, "somebody:updn")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (HEADER + "good = pkg:Good\ntwice = pkg:A\ntwice = pkg:B\n", "DuplicateOptionError"),
        (HEADER + "good = pkg:Good\n" + HEADER + "more = pkg:More\n", "DuplicateSectionError"),
        ("[console_scripts]\na = b:c\na = b:d\n" + HEADER + "good = pkg:Good\n", "DuplicateOptionError"),
        (HEADER + "good = pkg:Good\nodd = pkg:100%\n", "InterpolationSyntaxError"),
        (HEADER + "nonsense\ngood = pkg:Good\n", "nonsense"),
        (HEADER + "odd = !!!\ngood = pkg:Good\n", "malformed entry point: odd = !!!"),
    ],
    ids=["key twice", "section twice", "key twice in another group", "percent", "no equals sign", "no module"],
)
def test_malformed_lines_are_reported_and_cost_no_other_plugin(write: Write, text: str, complaint: str) -> None:
    write(text)
    found = available(BACKBONES)
    (problem,) = found.problems
    assert problem.startswith("bad: ")
    assert complaint in problem
    assert "\n" not in problem
    assert targets()["good"] == "pkg:Good"
    assert "odd" not in targets()
    assert find(BACKBONES, "updn").distribution == "vqabench-updn"


@pytest.mark.parametrize(
    "content", ["good = pkg:Good\n", b"\xff\xfe\x00[" + HEADER.encode()], ids=["header", "bytes"]
)
def test_unreadable_metadata_costs_only_its_own_distribution(write: Write, content: str | bytes) -> None:
    write(content)
    (problem,) = available(BACKBONES).problems
    assert problem.startswith("bad: its plugins cannot be read: ")
    assert targets() == {}
    assert find(BACKBONES, "updn").distribution == "vqabench-updn"


def test_an_unknown_name_lists_what_could_not_be_read(write: Write) -> None:
    write("wanted = pkg:Wanted\n")
    with pytest.raises(PluginError, match=r"unknown backbone 'wanted'.*bad: its plugins cannot be read"):
        find(BACKBONES, "wanted")


def test_spaces_around_the_colon_are_no_mistake(write: Write) -> None:
    write(HEADER + "spaced = pkg.mod : Cls\n")
    assert targets() == {"spaced": "pkg.mod:Cls"}
    assert available(BACKBONES).problems == ()


@pytest.mark.parametrize("malformed", [False, True], ids=["well-formed", "next to a malformed one"])
@pytest.mark.parametrize("spelling", ["my_plugin", "My.Plugin"])
def test_a_second_copy_further_down_the_path_is_no_clash(write: Write, spelling: str, malformed: bool) -> None:
    write(HEADER + "mine = old:Mine\nremoved = old:Removed\n", spelling, "0.9", at="stale")
    write(HEADER + "mine = new:Mine\n", "my_plugin", "1.1", at="fresh")
    if malformed:
        write("no header\n", at="third")
    assert targets("my-plugin") == {"mine": "new:Mine"}
    assert find(BACKBONES, "mine").version == "1.1"


def test_a_distribution_without_metadata_is_listed(write: Write) -> None:
    (write(HEADER + "mine = pkg:Mine\n", "Lone", "2.5") / "METADATA").unlink()
    plugin = find(BACKBONES, "mine")
    assert (plugin.distribution, plugin.version) == ("lone", "2.5")


class Elsewhere(Transform):
    """Belongs among the losses."""


class Scored(Loss):
    pass


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name under which this file can be imported."""
    monkeypatch.setitem(sys.modules, "vqabench_in_memory", sys.modules[__name__])
    return "vqabench_in_memory"


@pytest.mark.parametrize("name", ["Elsewhere", "Scored"])
def test_a_part_of_a_strategy_is_a_transform_or_a_loss(module: str, name: str) -> None:
    kind = load(Plugin("part", LOSSES, "some-dist", "1", f"{module}:{name}"))
    assert kind is globals()[name]


@pytest.mark.parametrize(
    ("group", "attribute", "message"),
    [
        (BACKBONES, ":Elsewhere", "a transform belongs in the group vqabench.losses"),
        (BACKBONES, ":Scored", "is not a class derived from Backbone of"),
        (LOSSES, ":Path", "is not a class derived from Loss or Transform of"),
        (BACKBONES, ":HEADER", "is not a class derived from Backbone"),
        (BACKBONES, ":", "is not a class derived from Backbone"),
        (BACKBONES, ":Missing", "cannot be loaded: AttributeError"),
        (BACKBONES, ".missing:Missing", "cannot be loaded: ModuleNotFoundError"),
    ],
)
def test_what_is_no_such_plugin_is_refused(module: str, group: str, attribute: str, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        load(Plugin("part", group, "some-dist", "1", module + attribute))
    assert message in str(caught.value)
    assert "'part' of some-dist 1" in str(caught.value)


@pytest.mark.parametrize("content", ["import sys; sys.exit(3)", "def (:", "from vqabench.api import Nothing"])
def test_whatever_a_module_does_at_import_becomes_one_line(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vqabench_failing.py").write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PluginError, match="backbone 'failing' of some-dist 1 cannot be loaded: ") as caught:
        load(Plugin("failing", BACKBONES, "some-dist", "1", "vqabench_failing:Failing"))
    assert "\n" not in str(caught.value)


def test_nothing_in_the_library_names_a_backbone() -> None:
    backbones = {plugin.name for plugin in plugins.available(BACKBONES).plugins} - {"prior"}  # also a word
    assert "updn" in backbones
    # Not so a file of style sheets: `report.css`.
    named = re.compile(rf"(?<![\w.-])({'|'.join(map(re.escape, backbones))})(?![\w-])", re.IGNORECASE)
    package = Path(plugins.__file__).parent
    sources = [path for path in package.rglob("*") if path.suffix in (".py", ".txt") and path.parent.name != "cli"]
    # The command line may name some in the examples of its help, but must decide nothing by their names.
    commands = "".join(path.read_text(encoding="utf-8") for path in (package / "cli").glob("*.py"))
    decision = re.compile(rf"([!=]=|\bin\b|\bcase\b) *[(\[{{]?[\"']({'|'.join(map(re.escape, backbones))})[\"']")
    assert not decision.search(commands)
    sources.append(package.parent / "datasets.toml")  # part of the wheel
    found = {path.name: match[0] for path in sources if (match := named.search(path.read_text(encoding="utf-8")))}
    assert not found
