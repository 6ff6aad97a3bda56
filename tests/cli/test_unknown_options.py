"""An option that does not exist: the line says what to write instead."""

from __future__ import annotations

import pytest

from tests.conftest import CommandLine


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("train updn --lr 0.1", "unknown option '--lr': write --set recipe.lr=VALUE"),
        ("train updn --lr=0.1", "unknown option '--lr': write --set recipe.lr=VALUE"),
        ("train updn -lr 0.1", "unknown option '--lr': write --set recipe.lr=VALUE"),
        ("train updn --learning-rate 0.1", "write --set recipe.lr=VALUE"),
        ("train updn --batch-size 64", "write --set recipe.batch_size=VALUE"),
        ("train updn --batch_size 64", "write --set recipe.batch_size=VALUE"),
        ("train updn --batchsize 64", "did you mean --set recipe.batch_size=VALUE?"),
        ("train updn --optimizer adam", "write --set recipe.optimizer=VALUE"),
        ("train updn --optim adam", "write --set recipe.optimizer=VALUE"),
        ("train updn --weight-decay 0", "write --set recipe.weight_decay=VALUE"),
        ("train updn --wd 0", "write --set recipe.weight_decay=VALUE"),
        ("train updn --warmup 0.1", "write --set recipe.warmup=VALUE"),
        ("train updn --clip none", "write --set recipe.clip=VALUE"),
        ("train updn --hidden 8", "write --set hidden=VALUE"),
        ("train css --hidden 8", "write --set base.hidden=VALUE"),
        ("train --loss mask+rescale --variant released updn", "write --set rescale.variant=VALUE"),
        ("train updn --loss=focal --gamma 1", "write --set focal.gamma=VALUE"),
        ("bench --backbones updn,lmh --entropy 0.1", "write --set entropy=VALUE"),
        ("bench --losses plain,focal --gamma 1", "write --set focal.gamma=VALUE"),
        ("train updn --sead 1", "did you mean --seeds?"),
        ("train updn --seed 1", "did you mean --seeds?"),
        ("train updn --epoch 1", "did you mean --epochs?"),
        ("train updn --finetune_epochs 1", "did you mean --finetune-epochs?"),
        ("train updn --objectiv ce", "did you mean --objective?"),
        ("train updn --gpu 0", "did you mean --device?"),
        ("report --output x.html", "did you mean --out?"),
        ("compare --lr 1", "unknown option '--lr': see vqabench compare --help"),
        ("compare --datset digits-cp", "did you mean --dataset?"),
        ("data list --jsn", "did you mean --json?"),
        ("train updn --zzz", "unknown option '--zzz': see vqabench train --help"),
        ("--verison", "did you mean --version?"),
        ("--data-dir d train updn", "write it after the command, as in vqabench train --data-dir"),
        ("data --catalog c list", "write it after the command, as in vqabench data list --catalog"),
        ("train updn -x", "unknown option '-x': see vqabench train --help"),
        (
            "compare --metric acuracy",
            "--metric: 'acuracy' is not one of 'accuracy', 'kappa'; did you mean 'accuracy'?",
        ),
        ("train updn --select tset", "--select: unknown value 'tset': did you mean 'test'?"),
        ("train updn --epochs x", "--epochs: must be a whole number, not 'x'"),
        ("train updn --epochs=1.5", "--epochs: must be a whole number, not '1.5'"),
        ("train updn --checkpoint-minutes soon", "--checkpoint-minutes: must be a number, not 'soon'"),
        ("data info digits-cp --types -1", "--types: must be at least 0, not '-1'"),
        ("comparre", "unknown command 'comparre': did you mean 'compare'?"),
        ("data fech", "unknown command 'fech': did you mean 'fetch'?"),
        ("help train", "unknown command 'help': see vqabench --help"),
        ("train updn rescale", "unexpected argument 'rescale': see vqabench train --help"),
        ("predict", "missing argument 'RUN': see vqabench predict --help"),
        ("train updn --epochs", "error: --epochs: needs a value"),
        ("train updn --resume=1", "error: --resume: takes no value"),
        ("data resplit digits-cp", "missing option '--out': see vqabench data resplit --help"),
    ],
)
def test_the_line_says_what_to_write_instead(cli: CommandLine, arguments: str, hint: str) -> None:
    done = cli(*arguments.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert hint in done.stderr
    assert len(done.stderr.splitlines()) == 1
