from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.tiny import write_tiny

HEAVY = {"torch", "numpy", "h5py", "sklearn", "scipy", "msgspec"}
LISTING = """
import json, sys
sys.argv = {argv!r}
from vqabench.cli import main
try:
    main()
except SystemExit:
    pass
print("\\n" + json.dumps(sorted(sys.modules)))
"""


def modules_after(*argv: str) -> set[str]:
    code = LISTING.format(argv=["vqabench", *argv])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["train", "--help"],
        ["report", "--help"],
        ["--version"],
        ["plugins", "list"],
        ["train", "--nonsense"],
    ],
    ids=str,
)
def test_answering_at_once_loads_nothing_heavy(argv: list[str]) -> None:
    loaded = modules_after(*argv)
    assert loaded & HEAVY == set()
    assert not any(name.startswith("vqabench_updn") for name in loaded)


def test_data_is_prepared_without_torch(tmp_path: Path) -> None:
    """PyTorch takes more than a second, and 150 MB of every process that converts features."""
    catalog = write_tiny(tmp_path / "own")
    for command in (["list"], ["prepare", "tiny"], ["info", "tiny"], ["verify", "tiny"]):
        loaded = modules_after("data", *command, "--catalog", str(catalog), "--data-dir", str(tmp_path / "data"))
        assert "torch" not in loaded, command
    assert (tmp_path / "data" / "tiny" / "prepared.h5").is_file()


def test_a_typo_is_answered_without_looking_for_plugins() -> None:
    for argv in (["trian"], ["train", "updn", "--epoch", "3"]):
        assert not {"entrypoints", "vqabench.plugins"} & modules_after(*argv)


def complete(cli: CommandLine, words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Return what the shell gets for TAB behind `words`."""
    asked = {"_VQABENCH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    return cli(**asked, **environment)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("vqabench train up", "updn"),
        ("vqabench train updn --loss mask+re", "mask+rescale"),
        ("vqabench train updn --log ten", "tensorboard"),
        ("vqabench train updn --dataset dig", "digits-cp"),
        ("vqabench train updn --objective b", "bce"),
        ("vqabench train updn --select t", "test"),
        ("vqabench train updn --precision b", "bfloat16"),
        ("vqabench train updn --features h", "host"),
        ("vqabench train updn --device c", "cuda"),
        ("vqabench compare --metric k", "kappa"),
        ("vqabench predict RUN --split v", "val"),
        ("vqabench bench --backbones updn,l", "updn,lmh"),
        ("vqabench bench --losses plain,mask+re", "plain,mask+rescale"),
        ("vqabench bench --objectives ce,", "ce,bce"),
        ("vqabench bench --datasets digits-cp,vqa-c", "digits-cp,vqa-cp-v2"),
        ("vqabench train updn --set re", "recipe.lr="),
        ("vqabench train updn --set hi", "hidden="),
        ("vqabench train css --set ba", "base="),
        ("vqabench train css --set base.hi", "base.hidden="),
        ("vqabench train updn --loss mask+rescale --set re", "rescale.variant="),
        ("vqabench train updn --loss rescale --set rescale.variant=rel", "rescale.variant=released"),
        ("vqabench bench --losses mask,focal --grid focal.g", "focal.gamma="),
        ("vqabench bench --losses mask --grid mask.reduction=mean,s", "mask.reduction=mean,sum"),
        ("vqabench plugins check rescale --set rescale.v", "rescale.variant="),
        ("vqabench plugins show resc", "rescale"),
        ("vqabench compare --split v", "val"),
        ("vqabench compare --columns All,g", "All,gain"),
        ("vqabench compare --by prior --columns T", "Tail"),
    ],
)
def test_the_shell_completes_names_lists_choices_and_settings(cli: CommandLine, words: str, expected: str) -> None:
    done = complete(cli, words)
    assert expected in done.stdout.split()
    assert done.stderr == ""


def test_the_shell_completes_the_rows_of_the_runs_that_are_there(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "runs" / "digits-cp" / "updn" / "ce-plain" / "seed-0").mkdir(parents=True)
    (tmp_path / "others" / "digits-cp" / "lmh" / "bce-plain").mkdir(parents=True)
    assert complete(cli, "vqabench compare --against ").stdout.split() == ["updn/ce-plain"]
    assert complete(cli, "vqabench compare --runs others --against l").stdout.split() == ["lmh/bce-plain"]


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ("vqabench bench --backbones updn,up", "updn,updn"),
        ("vqabench train updn --loss mask+ma", "mask+mask"),
        ("vqabench train updn --set gam", "focal.gamma="),
    ],
)
def test_the_shell_is_not_offered_what_would_be_refused(cli: CommandLine, words: str, refused: str) -> None:
    assert refused not in complete(cli, words).stdout.split()


def test_a_broken_catalogue_offers_nothing_and_prints_nothing(cli: CommandLine) -> None:
    done = complete(cli, "vqabench train updn --dataset ", VQABENCH_CATALOG="/there/is/none.toml")
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_completing_settings_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from vqabench.cli.completion import find_settings\n"
        "assert 'hidden' in find_settings(['updn', 'mask']) and 'mask.dropout' in find_settings(['updn', 'mask'])\n"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split())
    assert loaded & HEAVY == set()
    assert not any(name.startswith("vqabench_") for name in loaded)
