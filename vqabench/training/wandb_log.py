"""A run's log for Weights & Biases: one W&B run for each run here, however often it is resumed.

W&B's own variables apply: WANDB_MODE=offline, WANDB_PROJECT (else `vqabench`), WANDB_DIR (else the run's folder).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from wandb import Error, Settings, init, login, setup

from vqabench.errors import InputError, unknown
from vqabench.files.atomic import require_own
from vqabench.results import Manifest, Run
from vqabench.training.logs import Log, hyperparameters

MODES = ("online", "offline", "disabled", "dryrun", "run", "shared")
"""Values of `WANDB_MODE`."""
SECONDS_TO_SEND = 30
"""Seconds that the end of a run waits for unsent data; `wandb sync` sends the rest."""


class Sent(msgspec.Struct):
    """What was sent to W&B.

    W&B cannot delete rows. A resumed run trains the steps after its last checkpoint again, and an offline
    `init(resume="allow")` accepts their rows a second time, so rows that were sent are skipped.
    """

    id: str
    """Id of W&B's run."""
    rows: int = 0
    steps: int = 0
    epochs: int = 0


class WandbLog(Log):
    """Writes to W&B, or if it is offline to `<run>/wandb/`; the last line of `wandb.jsonl` is what was sent."""

    name = "wandb"

    def __init__(self, run: Run) -> None:
        self.folder = run.folder
        self.file = run.folder / "wandb.jsonl"
        self.sent = Sent(uuid.uuid4().hex[:8])
        self.session: Any = None

    @staticmethod
    def check_ready() -> None:
        """Log in to W&B; in a terminal, W&B asks for the key. Raises InputError if there is none."""
        mode = os.environ.get("WANDB_MODE", "online")
        if mode not in MODES:
            raise InputError(f"--log wandb: WANDB_MODE: {unknown('mode', mode, MODES)}")
        if setup().settings.mode in ("offline", "disabled", "dryrun"):
            return
        try:
            login(verify=False)
        except Error as error:
            raise InputError(f"--log wandb: {error} WANDB_MODE=offline needs no login") from error

    def start(self, manifest: Manifest, steps: int | None) -> str:
        """Start a W&B run, or continue it."""
        for own in (self.file, self.folder / "wandb"):
            require_own(own)
        self.sent = _read(self.file) or self.sent  # not earlier: a replaced run still has its predecessor's
        dataset, backbone, strategy, seed = self.folder.parts[-4:]
        self.session = init(
            id=self.sent.id,
            resume="allow",
            reinit="create_new",
            project=os.environ.get("WANDB_PROJECT", "vqabench"),
            group=f"{dataset}/{backbone}/{strategy}",
            name=f"{backbone}/{strategy}/{seed}",
            dir=os.environ.get("WANDB_DIR", str(self.folder.absolute())),  # its service may run elsewhere
            config=hyperparameters(manifest),
            allow_val_change=True,
            settings=Settings(
                console="off", silent=True, finish_timeout=SECONDS_TO_SEND, finish_timeout_raises=True
            ),
        )
        self.session.define_metric("step/*", step_metric="step")
        self.session.define_metric("epoch/*", step_metric="epoch")
        return str(Path(self.session.dir).parent if self.session.offline else self.session.url)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send numbers of a step or an epoch, unless they were sent before the run was interrupted."""
        before = self.sent.epochs, self.sent.steps
        self.sent.epochs = max(self.sent.epochs, int(numbers.get("epoch", 0)))
        if "epoch" not in numbers:
            self.sent.steps = max(self.sent.steps, step)
        if (self.sent.epochs, self.sent.steps) == before:
            return
        self.sent.rows += 1
        self.session.log({"step": step, **numbers}, step=self.sent.rows)
        with self.file.open("ab") as lines:  # appended: replacing the file atomically takes milliseconds
            lines.write(msgspec.json.encode(self.sent) + b"\n")

    def write_scores(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Send final scores to the run's summary."""
        self.session.summary.update({"chosen_epoch": epoch, **numbers})

    def close(self, status: str) -> None:
        """End the W&B run with the same outcome."""
        session, self.session = self.session, None
        if session is not None:
            if status == "stopped":
                session.mark_preempting()
            session.finish(exit_code=0 if status == "finished" else 1)


def _read(file: Path) -> Sent | None:
    """Return the last complete line, if there is one."""
    for line in reversed(file.read_bytes().splitlines()) if file.is_file() else ():
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(line, type=Sent)
    return None
