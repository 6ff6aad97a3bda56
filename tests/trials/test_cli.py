"""What must not run a plugin's code, and a doctor that survives whatever is broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.outcomes import assert_done
from tests.trials.conftest import Trial

pytestmark = pytest.mark.slow

MARKING = """\
from pathlib import Path
Path({mark!r}).write_text("was run")
from vqabench.api import Backbone
class Model(Backbone):
    def __init__(self, spec, *, width: int = 3): ...
"""


def mark(trial: Trial) -> Path:
    """Install a backbone `marked` that leaves a file behind where it is imported; return that file."""
    file = trial.folder / "mark"
    trial.install("marked", MARKING.format(mark=str(file)))
    trial.declare("marked", "[vqabench.backbones]\nmarked = trial_marked:Model\n")
    return file


@pytest.mark.parametrize(
    ("arguments", "typed", "expected"),
    [
        (["plugins", "list"], "", "marked"),
        (["doctor"], "", "12 backbones"),
        (["train", "marked", "--wdth", "3"], "", "did you mean --set width=VALUE?"),
        ([], "vqabench train marked --set w", "width="),
    ],
    ids=str,
)
def test_listing_completing_and_the_doctor_run_no_plugin(
    trial: Trial, arguments: list[str], typed: str, expected: str
) -> None:
    file = mark(trial)
    tab = {"_VQABENCH_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    ended = trial.cli(*arguments, **(tab if typed else {}))
    assert expected in ended.stdout + ended.stderr
    assert not file.exists()
    if not typed:
        trial.cli("plugins", "show", "marked")
        assert file.exists()


def doctor(trial: Trial, run: CommandLine) -> list[dict[str, str]]:
    """Return what the doctor finds broken; it must end with code 1, and say something of everything."""
    ended = run("doctor", "--json", *trial.catalog)
    assert (ended.returncode, ended.stderr) == (1, ""), ended.stderr
    findings = json.loads(ended.stdout)["findings"]
    assert {"versions", "plugins"} <= {finding["what"] for finding in findings}
    return [finding for finding in findings if finding["state"] == "broken"]


@pytest.mark.parametrize("package", ["numpy", "msgspec"])
def test_the_doctor_names_a_package_that_cannot_be_imported(trial: Trial, package: str) -> None:
    (trial.folder / "plugins" / f"{package}.py").write_text(
        f"raise ImportError('lib{package}.so: cannot open shared object file', name={package!r})\n"
    )
    broken = doctor(trial, trial.run)
    assert any(f"lib{package}.so" in finding["found"] for finding in broken)
    assert any(f"pip install --force-reinstall {package}" in finding["fix"] for finding in broken)


def test_the_doctor_survives_a_package_that_ends_the_program(trial: Trial) -> None:
    (trial.folder / "plugins" / "h5py.py").write_text("raise SystemExit(0)")
    assert doctor(trial, trial.run)


def test_the_doctor_names_a_plugin_without_its_module(trial: Trial) -> None:
    trial.declare("lost", "[vqabench.backbones]\nlost = trial_lost:Model\n")
    (finding,) = doctor(trial, trial.cli)
    assert "backbone lost of vqabench-lost 0.1: there is no module trial_lost" in finding["found"]


def test_the_doctor_names_a_plugin_that_lacks_a_package(trial: Trial) -> None:
    trial.plugin("lacking")
    module = trial.folder / "plugins" / "trial_lacking.py"
    module.write_text("import a_package_that_is_missing\n" + module.read_text())
    (finding,) = doctor(trial, trial.cli)
    assert "needs the package a_package_that_is_missing" in finding["found"]


def test_the_doctor_finds_damage_where_data_was_prepared(trial: Trial) -> None:
    assert_done(trial.cli("data", "prepare", "tiny", *trial.catalog))
    assert_done(trial.cli("doctor", *trial.catalog), "prepared: train 60")
    prepared = trial.folder / "data" / "tiny" / "prepared.h5"
    prepared.write_bytes(prepared.read_bytes()[:-1])
    (finding,) = doctor(trial, trial.cli)
    assert finding["fix"].startswith(f"rm {prepared} && vqabench data prepare tiny")
