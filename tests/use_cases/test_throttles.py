"""Throttles: guessing is stopped, parallel guesses included, and nobody can lock somebody else out."""

from __future__ import annotations

import asyncio

import pytest

from orgstead.errors import BadCredentials, Overloaded, RateLimited
from orgstead.throttles import Throttles, network_of
from tests.use_cases.watch import Watch

pytestmark = pytest.mark.anyio

VICTIM = "victim@example.com"
HOME = "192.0.2.1"


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def throttles(watch: Watch) -> Throttles:
    return Throttles(pair=5, address=20, account=30, unfamiliar_pair=2, window_seconds=900, clock=watch)


async def guess(
    throttles: Throttles, account: str = VICTIM, address: str | None = HOME, *, right: bool = False
) -> bool:
    """One log-in: True if the password would have been compared."""
    try:
        async with throttles.attempt(account, address) as attempt:
            if right:
                attempt.succeeded()
    except RateLimited:
        return False
    return True


async def guesses(throttles: Throttles, count: int, account: str = VICTIM, address: str | None = HOME) -> int:
    return sum([await guess(throttles, account, address) for _ in range(count)])


async def attacked_from_everywhere(throttles: Throttles) -> None:
    """Use up what all unfamiliar addresses together may try on the victim's account."""
    for host in range(6):
        assert await guesses(throttles, 5, address=f"198.51.100.{host}") == 5


async def test_wrong_passwords_for_one_account_from_one_address_end(throttles: Throttles, watch: Watch) -> None:
    assert await guesses(throttles, 1000) == 5
    assert not await guess(throttles, right=True), "even the right one is not looked at"
    watch.advance(899)
    assert not await guess(throttles)
    watch.advance(1)
    assert await guess(throttles, right=True)


async def test_the_refusal_says_how_long_to_wait(throttles: Throttles, watch: Watch) -> None:
    await guesses(throttles, 1)
    watch.advance(100.5)
    await guesses(throttles, 4)
    with pytest.raises(RateLimited) as refused:
        async with throttles.attempt(VICTIM, HOME):
            pass
    assert refused.value.retry_after == 800


async def test_right_passwords_are_not_counted(throttles: Throttles) -> None:
    for _ in range(100):
        assert await guess(throttles, right=True)
    assert await guesses(throttles, 10) == 5


async def test_a_right_password_does_not_forgive_wrong_ones(throttles: Throttles) -> None:
    """Behind one address the owner's log-ins would otherwise give a neighbour new guesses for ever."""
    tried = 0
    for _ in range(20):
        tried += await guess(throttles)
        await guess(throttles, right=True)
    assert tried == 5


async def test_the_owner_elsewhere_is_not_locked_out(throttles: Throttles) -> None:
    await guesses(throttles, 1000, address="198.51.100.7")
    assert await guess(throttles, right=True)


async def test_guesses_from_many_addresses_get_two_each_and_the_owner_still_gets_in(throttles: Throttles) -> None:
    await attacked_from_everywhere(throttles)
    for host in range(20, 40):
        assert await guesses(throttles, 10, address=f"198.51.100.{host}") == 2
    assert await guess(throttles, address="203.0.113.99", right=True), "the owner on a journey"


async def test_an_address_that_the_owner_used_keeps_its_attempts(throttles: Throttles) -> None:
    await guess(throttles, right=True)
    await attacked_from_everywhere(throttles)
    assert await guesses(throttles, 10) == 5


async def test_familiar_addresses_do_not_use_up_what_others_may_try(throttles: Throttles) -> None:
    for host in range(10):
        assert await guess(throttles, address=f"203.0.113.{host}", right=True)
        await guesses(throttles, 5, address=f"203.0.113.{host}")
    assert await guesses(throttles, 10, address="198.51.100.1") == 5


async def test_familiarity_ends(throttles: Throttles, watch: Watch) -> None:
    await guess(throttles, right=True)
    watch.advance(30 * 24 * 3600)
    await attacked_from_everywhere(throttles)
    assert await guesses(throttles, 10) == 2


async def test_familiarity_is_of_one_account(throttles: Throttles) -> None:
    await guess(throttles, "neighbour@example.com", right=True)
    await attacked_from_everywhere(throttles)
    assert await guesses(throttles, 10) == 2


async def test_one_guess_at_each_of_many_accounts_is_stopped(throttles: Throttles) -> None:
    tried = sum([await guess(throttles, f"user{n}@example.com", "198.51.100.7") for n in range(1000)])
    assert tried == 20
    assert await guess(throttles, "user1@example.com", HOME)


async def test_an_ipv6_customer_is_one_address(throttles: Throttles) -> None:
    tried = sum([await guess(throttles, address=f"2001:db8:1:2::{n:x}") for n in range(1, 50)])
    assert tried == 5
    assert await guess(throttles, address="2001:db8:1:3::1")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:0DB8:0:0:ffff::1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, "local"),
        ("testclient", "testclient"),
        ("x" * 1000, "x" * 320),
    ],
)
def test_what_an_address_is_counted_as(address: str | None, network: str) -> None:
    assert network_of(address) == network


async def test_parallel_guesses_cannot_race_past_the_limit(throttles: Throttles) -> None:
    """All begin before any has an outcome."""
    evaluated = 0
    decided = asyncio.Event()

    async def wrong() -> None:
        nonlocal evaluated
        async with throttles.attempt(VICTIM, HOME):
            evaluated += 1
            await decided.wait()
            raise BadCredentials

    racing = [asyncio.create_task(wrong()) for _ in range(100)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert evaluated == 5
    decided.set()
    outcomes = await asyncio.gather(*racing, return_exceptions=True)
    assert evaluated == 5
    assert [type(outcome) for outcome in outcomes].count(BadCredentials) == 5
    assert [type(outcome) for outcome in outcomes].count(RateLimited) == 95


async def test_parallel_right_log_ins_all_get_in(throttles: Throttles) -> None:
    """They wait for each other instead of being taken for guesses."""
    running = most = 0

    async def right() -> None:
        nonlocal running, most
        async with throttles.attempt(VICTIM, HOME) as attempt:
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1
            attempt.succeeded()

    await asyncio.gather(*(right() for _ in range(200)))
    assert most == 5
    assert await guesses(throttles, 10) == 5


async def test_who_waits_too_long_is_told_to_come_back(watch: Watch) -> None:
    throttles = Throttles(pair=1, max_wait_seconds=0, clock=watch)
    async with throttles.attempt(VICTIM, HOME) as attempt:
        with pytest.raises(Overloaded) as refused:
            async with throttles.attempt(VICTIM, HOME):
                pass
        assert refused.value.retry_after == 1
        attempt.succeeded()
    assert await guess(throttles, right=True)


async def test_giving_up_while_waiting_leaves_no_trace(throttles: Throttles) -> None:
    entered = asyncio.Event()

    async def wait() -> None:
        async with throttles.attempt(VICTIM, HOME):
            entered.set()

    async with throttles.attempt(VICTIM, HOME) as first:
        others = [throttles.attempt(VICTIM, HOME) for _ in range(4)]
        for other in others:
            (await other.__aenter__()).succeeded()
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        for other in others:
            await other.__aexit__(None, None, None)
        first.succeeded()
    assert not entered.is_set()
    assert await guesses(throttles, 10) == 5


async def test_a_password_that_was_not_compared_is_not_counted(throttles: Throttles) -> None:
    for _ in range(50):
        with pytest.raises(Overloaded):
            async with throttles.attempt(VICTIM, HOME):
                raise Overloaded
    assert await guesses(throttles, 10) == 5


async def test_leaving_before_the_answer_counts(throttles: Throttles) -> None:
    """The hash goes on without the one who asked, and a guesser must not get it for nothing."""
    for _ in range(5):
        with pytest.raises(asyncio.CancelledError):
            async with throttles.attempt(VICTIM, HOME):
                raise asyncio.CancelledError
    assert not await guess(throttles)


async def test_a_clock_that_is_set_back_locks_nobody_out_for_long(throttles: Throttles, watch: Watch) -> None:
    await guesses(throttles, 5)
    watch.advance(-3600)
    assert await guess(throttles)


async def test_the_memory_is_bounded_and_let_go(watch: Watch) -> None:
    throttles = Throttles(capacity=50, address=10**6, clock=watch)
    for n in range(500):
        await guess(throttles, f"user{n}@example.com", f"198.51.{n // 250}.{n % 250}")
        await guess(throttles, f"user{n}@example.com", f"203.0.{n // 250}.{n % 250}", right=True)
    assert len(throttles._wrong) <= 50
    assert len(throttles._familiar) <= 50
    assert not throttles._running
    watch.advance(900)
    await guess(throttles)
    assert len(throttles._wrong) == 3, "what is over is forgotten with the next count"
