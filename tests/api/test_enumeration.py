"""Nothing says whether an account exists: one answer, one cost, in every order (R08).

Costs are compared by counting password hashes, the only part that takes long enough to be measured from outside. A
sample of real times is printed (``pytest -s``) and not asserted: a busy machine would fail it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any

import httpx2
import pytest
from argon2 import PasswordHasher

from orgstead.storage import tables
from tests.api.actors import PASSWORD, Service, password_hash
from tests.support import EVERYTHING

pytestmark = pytest.mark.anyio

SAMPLES = 200 if EVERYTHING else 20
SAME = {"x-request-id": "one-and-the-same"}
WRONG = "not the password"


class Counted:
    """How many hashes Argon2 was asked for, by whomever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.evaluated = 0
        for name in ("verify", "hash"):
            monkeypatch.setattr(PasswordHasher, name, self._counting(getattr(PasswordHasher, name)))

    def _counting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.evaluated += 1
            return method(*args, **kwargs)

        return counted


@pytest.fixture
def counting(service: Service, monkeypatch: pytest.MonkeyPatch) -> Counted:
    password_hash()
    return Counted(monkeypatch)


def seen(answer: httpx2.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    """All that an answer shows."""
    return answer.status_code, answer.content, answer.headers.multi_items()


async def attempts(service: Service) -> dict[str, dict[str, Any]]:
    """Log-ins that fail, each for a reason of its own that nobody may learn."""
    acme, halted = await service.organization("Acme"), await service.suspended("Halted")
    halted_by_operator = await service.suspended("Stopped", by="operator")
    closed = await service.closed("Closed")
    nowhere = await service.stored_user()
    wrong = {"password": WRONG}
    right = {"password": PASSWORD}
    return {
        "unknown address": {"email": "nobody@people.example.com", **right},
        "unknown domain": {"email": "nobody@nowhere.example", **wrong},
        "no address": {"email": "nobody", **wrong},
        "empty address": {"email": "", **wrong},
        "wrong password": {"email": acme.owner.email, **wrong},
        "wrong password, viewer": {"email": acme.viewer.email, **wrong},
        "empty password": {"email": acme.owner.email, "password": ""},
        "password too long": {"email": acme.owner.email, "password": "x" * 2000},
        "suspended organization": {"email": halted.owner.email, **right},
        "suspended by the operator": {"email": halted_by_operator.owner.email, **right},
        "closed organization, member": {"email": closed.member.email, **right},
        "no organization": {"email": nowhere.email, **right},
        "foreign organization": {"email": acme.owner.email, **right, "organization": halted.id},
        "missing organization": {"email": acme.owner.email, **right, "organization": "missing"},
    }


@pytest.mark.parametrize("path", ["/v1/auth/login", "/admin/login"])
async def test_a_log_in_that_fails_says_and_costs_the_same(service: Service, counting: Counted, path: str) -> None:
    answers = {}
    for name, body in (await attempts(service)).items():
        before = counting.evaluated
        answers[name] = seen(await service.ask("POST", path, body=body, headers=SAME))
        assert counting.evaluated == before + 1, name
    assert answers["unknown address"][0] == 401
    for name, answer in answers.items():
        assert answer == answers["unknown address"], name


async def test_who_is_throttled_is_told_so_whether_known_or_not(service: Service, counting: Counted) -> None:
    """The eleventh guess: the same answer, no hash, and the right password is refused like a wrong one."""
    acme = await service.organization("Acme")
    shown = {}
    for email in (acme.owner.email, "nobody@people.example.com", "no address"):
        for _ in range(10):
            await service.ask("POST", "/v1/auth/login", body={"email": email, "password": WRONG})
        before = counting.evaluated
        for password in (PASSWORD, WRONG):
            answer = await service.ask(
                "POST", "/v1/auth/login", body={"email": email, "password": password}, headers=SAME
            )
            shown[email, password] = seen(answer)
        assert counting.evaluated == before
    expected = shown[acme.owner.email, PASSWORD]
    assert expected[0] == 429
    assert all(answer == expected for answer in shown.values())


async def test_what_a_known_address_may_tell_is_told_to_owners_of_a_password_only(
    service: Service, counting: Counted
) -> None:
    """Signing up says that an address is taken (the brief asks for it), at the cost of one hash either way."""
    acme = await service.organization("Acme")
    before = counting.evaluated
    known = {"organization_name": "Venture", "email": acme.owner.email, "password": WRONG}
    assert (await service.ask("POST", "/org/create", body=known)).status_code == 409
    assert counting.evaluated == before + 1
    unknown = {"organization_name": "Venture", "email": "new@people.example.com", "password": WRONG}
    assert (await service.ask("POST", "/org/create", body=unknown)).status_code == 201
    assert counting.evaluated == before + 2


async def test_a_refused_refresh_says_nothing_about_its_session(service: Service) -> None:
    acme = await service.organization("Acme")
    (session,) = await service.rows(tables.sessions, id=acme.owner.session_id)
    token = service.app.tokens.refresh_token(session)
    head, _, mac = token.rpartition("_")
    await service.ask("POST", "/v1/auth/logout", acme.owner)
    asked = (token, f"{head}_{'0' * 64}", f"rt_{'0' * 26}_1_{mac}", "rt_", "", "x" * 5000)
    answers = [
        seen(await service.ask("POST", "/v1/auth/refresh", body={"refresh_token": text}, headers=SAME))
        for text in asked
    ]
    assert answers[0][0] == 401
    assert all(answer == answers[0] for answer in answers)


async def test_the_times_of_failing_log_ins(service: Service, counting: Counted) -> None:
    """Print what an attacker could measure: medians of interleaved attempts, in milliseconds."""
    tried = {
        name: body
        for name, body in (await attempts(service)).items()
        if name in ("unknown address", "wrong password", "suspended organization", "no address")
    }
    times: dict[str, list[float]] = {name: [] for name in tried}
    for _ in range(SAMPLES):
        for name, body in tried.items():
            service.watch.advance(hours=1)
            began = perf_counter()
            answer = await service.ask("POST", "/v1/auth/login", body=body)
            times[name].append(perf_counter() - began)
            assert answer.status_code == 401
    assert counting.evaluated == SAMPLES * len(tried)
    for name, taken in times.items():
        quarter, median, three_quarters = (value * 1000 for value in statistics.quantiles(taken, n=4))
        print(f"{name:>24}: median {median:6.2f} ms, quartiles {quarter:6.2f} to {three_quarters:6.2f}")
