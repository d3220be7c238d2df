"""Requests that arrive together share passes, nobody starves, and an error reaches those it concerns."""

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from tocsin.errors import TocsinError
from tocsin.service.batching import Batcher, fair_shares


class Count:
    """Work of so many units."""

    def __init__(self, units: int) -> None:
        self.remaining = units


class Passes:
    """Counts down, and remembers what each pass held."""

    def __init__(self, seconds: float = 0.01, fail_at: int | None = None) -> None:
        self.held: list[list[int]] = []
        self.seconds, self.fail_at = seconds, fail_at

    def step(self, shares: Sequence[tuple[Count, int]]) -> None:
        assert threading.current_thread().name.startswith("score")
        time.sleep(self.seconds)
        self.held.append([n for _, n in shares])
        if len(self.held) == self.fail_at:
            raise MemoryError("too much")
        for work, n in shares:
            work.remaining -= n


def batcher(passes: Passes, *, units: int = 8, requests: int = 8, wait_s: float = 0.0) -> Batcher[Count]:
    return Batcher(passes.step, units=units, requests=requests, wait_s=wait_s, name="score")


async def run_all(one: Batcher[Count], units: Sequence[int]) -> list[object]:
    found = await asyncio.gather(*(one.run(Count(n)) for n in units), return_exceptions=True)
    await one.close()
    return list(found)


@pytest.mark.parametrize(
    ("remaining", "units", "shares"),
    [
        ([100], 8, [8]),
        ([1, 1, 1], 8, [1, 1, 1]),
        ([100, 1, 100], 9, [4, 1, 4]),
        ([3, 100], 8, [3, 5]),
        ([5] * 4, 2, [1] * 4),  # each advances
    ],
)
def test_shares_are_equal_and_what_is_left_goes_to_the_large(
    remaining: list[int], units: int, shares: list[int]
) -> None:
    assert fair_shares(remaining, units) == shares


def test_requests_that_arrive_together_share_a_pass() -> None:
    passes = Passes()
    done = asyncio.run(run_all(batcher(passes), [1] * 6))
    assert [work.remaining for work in done] == [0] * 6  # type: ignore[attr-defined]
    assert passes.held == [[1] * 6]


def test_one_by_one_where_that_is_set() -> None:
    passes = Passes(seconds=0)
    asyncio.run(run_all(batcher(passes, requests=1), [1] * 4))
    assert passes.held == [[1]] * 4


def test_a_huge_request_does_not_hold_up_small_ones() -> None:
    passes = Passes(seconds=0.002)

    async def main() -> tuple[int, int]:
        one = batcher(passes)
        huge = asyncio.create_task(one.run(Count(800)))
        await asyncio.sleep(0.02)
        before = len(passes.held)
        await asyncio.gather(*(one.run(Count(1)) for _ in range(5)))
        waited, left = len(passes.held) - before, (await huge).remaining
        await one.close()
        return waited, left

    waited, left = asyncio.run(main())
    assert waited <= 2  # the pass that ran, and their own
    assert left == 0
    assert max(map(sum, passes.held)) == 8


def test_a_busy_model_waits_for_as_many_as_before_and_an_idle_one_for_nobody() -> None:
    passes = Passes(seconds=0)

    async def main() -> float:
        one = batcher(passes, wait_s=0.5)
        begin = time.monotonic()
        await one.run(Count(1))
        alone = time.monotonic() - begin

        async def twice(pause: float) -> None:
            await one.run(Count(1))
            await asyncio.sleep(pause)
            await one.run(Count(1))

        long = asyncio.create_task(one.run(Count(60)))  # keeps the model busy
        await asyncio.gather(*(twice(pause) for pause in (0.0, 0.01, 0.02)))
        await long
        await one.close()
        return alone

    assert asyncio.run(main()) < 0.2
    assert max(map(len, passes.held)) == 4
    assert len(passes.held) < 20


def test_an_error_reaches_the_requests_of_its_pass_and_no_other() -> None:
    passes = Passes(fail_at=1)

    async def main() -> tuple[list[object], Count]:
        one = batcher(passes)
        failed = await asyncio.gather(one.run(Count(1)), one.run(Count(1)), return_exceptions=True)
        after = await one.run(Count(1))
        await one.close()
        return list(failed), after

    failed, after = asyncio.run(main())
    assert [type(error) for error in failed] == [MemoryError] * 2
    assert after.remaining == 0


def test_at_the_end_those_who_wait_are_told_and_the_thread_ends() -> None:
    passes = Passes(seconds=0.02)

    async def main() -> list[object]:
        one = batcher(passes, requests=1)
        tasks = [asyncio.create_task(one.run(Count(1))) for _ in range(3)]
        await asyncio.sleep(0.005)
        await one.close()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        with pytest.raises(TocsinError, match="the service ends"):
            await one.run(Count(1))
        return list(found)

    found = asyncio.run(main())
    assert [isinstance(one, TocsinError) for one in found] == [False, True, True]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("score")]
