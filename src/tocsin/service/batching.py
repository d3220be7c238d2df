"""Scores requests that arrive together in one pass of the network.

A network takes hardly longer for several inputs than for one, so those who wait are served together. Each pass
has room for so many units (windows or images), shared fairly: a request for a million windows advances by a
part of each pass, and a small one that arrives in between is done with the next pass.

All bookkeeping happens in the event loop, so nothing needs a lock. The passes run in one thread per model: torch
lets go of the interpreter while it computes, and the loop goes on answering.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

from tocsin.errors import TocsinError


class Work(Protocol):
    """What one request wants of the network."""

    @property
    def remaining(self) -> int:
        """Units that are still to be scored."""


W = TypeVar("W", bound=Work)


class Batcher(Generic[W]):
    """Runs works in common passes.

    Args:
        step: Scores the next units of some works, given as (work, units); runs in a thread.
        units: In a pass, > 0.
        requests: Works in a pass at most; 1 = one by one.
        wait_s: A busy model waits for the next request as long as they come at shorter intervals than this, in
            seconds; for no more of them than there were of late, and no longer than a pass takes. Where requests
            come one at a time, nobody waits.
        name: Of the thread.
    """

    def __init__(
        self,
        step: Callable[[Sequence[tuple[W, int]]], None],
        *,
        units: int,
        requests: int,
        wait_s: float,
        name: str,
    ) -> None:
        self._step = step
        self._units = units
        self._requests = requests
        self._wait_s = wait_s
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting: deque[tuple[W, asyncio.Future[None]]] = deque()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def run(self, work: W) -> W:
        """Have a work done; it comes back with what was found.

        Raises:
            TocsinError: The service ends.
        """
        if self._closed:
            raise TocsinError("the service ends; ask again when it is back")
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((work, done))
        self._arrived.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        await done
        return work

    async def close(self) -> None:
        """Finish the pass that runs, refuse what waits, and end the thread."""
        self._closed = True
        if self._task is not None:
            await self._task
        await asyncio.to_thread(self._executor.shutdown)

    async def _drain(self) -> None:
        """Passes, as long as someone waits."""
        crowd, lasted = 1, 0.0  # requests in a pass, of late; seconds of the last one
        loop = asyncio.get_running_loop()
        while self._waiting and not self._closed:
            if crowd > 1:
                await self._gather(crowd, lasted)
            chosen = [self._waiting.popleft() for _ in range(min(self._requests, len(self._waiting)))]
            crowd = max(len(chosen), crowd * 3 // 4)
            parts = fair_shares([work.remaining for work, _ in chosen], self._units)
            shares = [(work, n) for (work, _), n in zip(chosen, parts, strict=True)]
            begin = loop.time()
            passing = loop.run_in_executor(self._executor, self._step, shares)
            await asyncio.wait([passing])
            lasted = loop.time() - begin
            self._settle(chosen, passing.exception())
        while self._closed and self._waiting:
            _, done = self._waiting.popleft()
            if not done.done():
                done.set_exception(TocsinError("the service ends; ask again when it is back"))

    def _settle(self, chosen: list[tuple[W, "asyncio.Future[None]"]], error: BaseException | None) -> None:
        """Answer those whose work is done or has failed; the others go to the end of the queue."""
        for work, done in chosen:
            if done.done():  # cancelled: its client has gone
                continue
            if error is not None:
                done.set_exception(error)
            elif work.remaining == 0:
                done.set_result(None)
            else:
                self._waiting.append((work, done))

    async def _gather(self, crowd: int, longest: float) -> None:
        """Wait until so many are there, as long as they keep coming."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + max(longest, self._wait_s)
        while len(self._waiting) < crowd and not self._closed:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), min(self._wait_s, deadline - loop.time()))
            except TimeoutError:
                return


def fair_shares(remaining: Sequence[int], units: int) -> list[int]:
    """Units of a pass for each of some works: equal parts, and what small works leave goes to the larger ones.

    Args:
        remaining: Units that each work still wants, > 0.
        units: Of the pass. Each work gets one at least.
    """
    shares = [0] * len(remaining)
    left = units
    ordered = sorted(range(len(remaining)), key=lambda index: remaining[index])
    for position, index in enumerate(ordered):
        equal = left // (len(ordered) - position)
        shares[index] = min(remaining[index], max(1, equal))
        left -= shares[index]
    return shares
