"""Work done in threads a little ahead of where its results are wanted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from vqabench.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def work_ahead(
    items: Iterable[Item], work: Callable[[Item], Result], threads: int, most: int
) -> Iterator[tuple[Item, Future[Result]]]:
    """Give every item with what is made of it, in their order, at most so many ahead.

    Threads, for what takes the time here runs without Python's lock, and no open file has to cross into a process.
    Where the items break off with an InputError, those before it are given first.
    """
    ahead: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads, "ahead") as pool:
        try:
            for item in items:
                ahead.append((item, pool.submit(work, item)))
                if len(ahead) > most:
                    yield ahead.popleft()
        except InputError:
            yield from ahead
            raise
        else:
            yield from ahead
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
