"""Annotation files as columns, large ones by several processes.

Python decodes on one core at a time, so a large file is cut between two entries every few megabytes, and each
process decodes its share of the pieces. The processes are plain children that answer in MessagePack: a pool of
`multiprocessing` would run the main module of a user's script again, and a fork is not safe where PyTorch has
started threads. Whatever fails on the way, the file is read again at one go, which tells what is wrong with it.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vqabench.data.annotation_table import AnnotationTable, Labels, concatenate, tabulate
from vqabench.data.annotations import (
    ANNOTATORS,
    Annotation,
    ImageId,
    check_answers,
    check_ids,
    decode_annotations,
    read_annotations,
)
from vqabench.data.packed_files import is_packed
from vqabench.data.processors import count_processors
from vqabench.errors import InputError

LARGE = 16_000_000
"""Bytes: a child takes a quarter of a second to start."""
MOST_PROCESSES = 4
PIECE = 8_000_000
"""Bytes, about: the records of so many are held as objects at once."""
WINDOW = 1_000_000
"""Bytes in which an entry must begin and end, for the file to be cut before it."""


@contextmanager
def reading_annotations(path: Path) -> Iterator[Callable[[], AnnotationTable]]:
    """Start to read an annotations file in other processes, where it is large; what is given reads the rest of it.

    That raises InputError where the file is broken or a question has other than ten answers.
    """
    processes = _count_processes(path)
    with ExitStack() as stack:
        children: list[subprocess.Popen[bytes]] = []
        try:
            for share in range(1, processes):
                children.append(stack.enter_context(_start_child(path, share, processes)))
                stack.callback(children[-1].kill)
        except OSError:
            children = []
        yield lambda: _read_rest(path, children)


def _read_rest(path: Path, children: Sequence[subprocess.Popen[bytes]]) -> AnnotationTable:
    table = _read_together(path, children) if children else None
    if table is None:
        annotations = read_annotations(path)
        check_answers(annotations, str(path))
        return tabulate(annotations)
    check_ids(table.question_ids.tolist(), path)
    return table


def _read_together(path: Path, children: Sequence[subprocess.Popen[bytes]]) -> AnnotationTable | None:
    """Read the first share here; None where that or a child fails, so that reading at one go tells why."""
    try:
        tables = [tabulate(_read_share(path, 0, 1 + len(children)))]
        tables += [_unpack(child.stdout.read()) for child in children if child.stdout is not None]
    except (InputError, OSError, ValueError, msgspec.MsgspecError):
        return None
    return concatenate(tables)


def _count_processes(path: Path) -> int:
    if not path.is_file() or path.stat().st_size < LARGE or is_packed(path):  # each would unpack all of it
        return 1
    return min(count_processors(), MOST_PROCESSES)


def _start_child(path: Path, share: int, shares: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "vqabench.data.annotation_reading", str(path.absolute())]
    return subprocess.Popen(
        [*command, str(share), str(shares)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # numpy's idle threads would keep other cores busy
    )


def _read_share(path: Path, share: int, shares: int) -> Iterator[Annotation]:
    """Read one of so many equal shares of a file. Raises InputError where it is broken, or cannot be cut."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        pieces = 1 + size // shares // PIECE
        official = _read_from(stream, 0, WINDOW).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{")
        head, tail = (b'{"annotations":[', b"]}") if official else (b"[", b"]")
        start = _find_entry(stream, size * share // shares, path) if share else 0
        for piece in range(share * pieces + 1, (share + 1) * pieces + 1):
            is_last = piece == shares * pieces
            end = size if is_last else _find_entry(stream, size * piece // (shares * pieces), path)
            content = _read_from(stream, start, end - start)
            whole = content if is_last else content.rstrip().removesuffix(b",") + tail
            yield from decode_annotations(path, head + whole if start else whole)
            start = end


def _find_entry(stream: IO[bytes], position: int, path: Path) -> int:
    """Find where the first entry behind a position begins: an object that holds an annotation's keys."""
    text = _read_from(stream, position, WINDOW).decode("latin-1")  # a byte a character
    for candidate in re.finditer(r"\}\s*,\s*(?=\{)", text, re.ASCII):
        try:
            entry, _ = json.JSONDecoder().raw_decode(text, candidate.end())
        except ValueError:
            continue
        if "answers" in entry and "question_id" in entry:
            return position + candidate.end()
    raise InputError(f"{path}: holds no entry behind byte {position}")


def _read_from(stream: IO[bytes], position: int, size: int) -> bytes:
    stream.seek(position)
    return stream.read(size)


class _PackedLabels(msgspec.Struct):
    names: Sequence[str]
    codes: bytes


class _PackedTable(msgspec.Struct):
    question_ids: bytes
    image_ids: Sequence[ImageId]
    question_types: _PackedLabels
    answer_types: _PackedLabels
    modal_answers: _PackedLabels
    answers: _PackedLabels
    records: bytes


def _pack(table: AnnotationTable) -> bytes:
    return msgspec.msgpack.encode(_PackedTable(**{name: _pack_column(one) for name, one in vars(table).items()}))


def _pack_column(column: Any) -> Any:
    if isinstance(column, Labels):
        return _PackedLabels(column.names, column.codes.tobytes())
    return column.tobytes() if isinstance(column, np.ndarray) else column


def _unpack(packed: bytes) -> AnnotationTable:
    table = msgspec.msgpack.decode(packed, type=_PackedTable)
    answers = _unpack_labels(table.answers)
    return AnnotationTable(
        np.frombuffer(table.question_ids, np.int64),
        table.image_ids,
        _unpack_labels(table.question_types),
        _unpack_labels(table.answer_types),
        _unpack_labels(table.modal_answers),
        Labels(answers.names, _by_question(answers.codes)),
        _by_question(np.frombuffer(table.records, np.int8)),
    )


def _unpack_labels(packed: _PackedLabels) -> Labels:
    return Labels(packed.names, np.frombuffer(packed.codes, np.int32))


def _by_question(flat: NDArray[Any]) -> NDArray[Any]:
    return flat.reshape(-1, ANNOTATORS)


def _main() -> None:
    path, share, shares = sys.argv[1:]
    sys.stdout.buffer.write(_pack(tabulate(_read_share(Path(path), int(share), int(shares)))))


if __name__ == "__main__":
    _main()
