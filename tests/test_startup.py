from __future__ import annotations

import json
import subprocess
import sys

import pytest

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


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("vqabench train up", "updn"),
        ("vqabench train updn --loss mask+re", "mask+rescale"),
        ("vqabench train updn --log ten", "tensorboard"),
    ],
)
def test_the_shell_is_offered_backbones_losses_and_logs(words: str, expected: str) -> None:
    environment = {"_VQABENCH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-m", "vqabench"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert expected in done.stdout.split()
