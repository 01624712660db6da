"""Rooms: who may enter which, what is told there, and that nobody hears of another user."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from moonxd.control.live.tokens import Tokens
from moonxd.domain.errors import ConfigError
from moonxd.domain.live import TokenRefused
from tests.control.live_harness import (
    ED25519,
    PUBLIC_PEM,
    SECRET,
    alert_event,
    live,
    made_event,
    portfolio_event,
    stats_event,
    token,
)
from tests.services.redis import until


async def test_a_page_hears_of_its_user_in_the_words_of_the_contract(redis_url: str) -> None:
    async with live(redis_url) as bench, bench.page() as page:
        assert await page.join("user:u1", token()) == {"type": "joined", "room": "user:u1", "id": 0}
        kinds = ("sync.queued", "sync.started", "sync.completed", "sync.failed", "sync.retrying", "sync.cancelled")
        await bench.tell(*(made_event(kind, "u1") for kind in kinds), portfolio_event("u1", total=7))
        heard = [await page.hear() for _ in range(7)]
        assert [one["type"] for one in heard] == [kind.replace(".", "_") for kind in kinds] + ["portfolio_update"]
        assert [one["id"] for one in heard] == list(range(1, 8))
        last = heard[-1]
        assert last["data"]["totalValueUsd"] == 7
        assert last["room"] == "user:u1"
        assert {"eventId", "timestamp", "userId", "walletAddress"} <= set(last)
        assert bench.counts.sent["portfolio_update"] == 1


async def test_pages_do_not_hear_of_our_machines(redis_url: str) -> None:
    async with live(redis_url) as bench, bench.page() as page:
        await page.join("user:u1", token())
        await bench.tell(made_event("sync.started", "u1", workerId="host-1:42", workerVersion="1", syncType="full"))
        heard = await page.hear()
        assert heard["data"] == {"syncType": "full"}
        assert "host-1" not in json.dumps(heard)


async def test_what_is_not_for_browsers_is_not_told_but_counts_as_seen(redis_url: str) -> None:
    async with live(redis_url) as bench, bench.page() as page:
        await page.join("user:u1", token(roles="system"))
        await page.join("stats")
        await page.join("system")
        kinds = ("user.activity", "stats.health_check", "stats.collection_started", "something.new")
        await bench.tell(*(made_event(kind, "u1") for kind in kinds), portfolio_event("u1"))
        assert (await page.hear())["id"] == 5
        assert (await page.join("stats", lastEventId=4))["id"] == 4, "no resync"
        await page.say(type="ping")
        assert (await page.hear())["type"] == "pong"


async def test_users_never_hear_of_each_other(redis_url: str) -> None:
    """Ids that begin alike, that hold the separator, and the names of the other rooms."""
    users = ["u1", "u11", "u", "stats", "system", "user:u1", "U1", "u1 "]
    async with live(redis_url) as bench, bench.pages(len(users)) as opened:
        pages = dict(zip(users, opened, strict=True))
        for user, page in pages.items():
            for other in users:
                said = await page.join(f"user:{other}", token(user))
                assert said["type"] == ("joined" if other == user else "error"), (user, other, said)
        await bench.tell(*(portfolio_event(user, total=number) for number, user in enumerate(users)))
        for number, user in enumerate(users):
            heard = await pages[user].hear()
            assert (heard["userId"], heard["data"]["totalValueUsd"]) == (user, number)
        for page in pages.values():
            await page.say(type="ping")
            assert (await page.hear())["type"] == "pong", "nothing else came"


async def test_stats_and_system(redis_url: str) -> None:
    async with live(redis_url) as bench, bench.pages(3) as (nobody, user, admin):
        assert (await nobody.join("stats"))["code"] == "token_required"
        assert (await user.join("stats", token()))["type"] == "joined"
        assert (await user.join("system", token()))["code"] == "forbidden"
        assert (await admin.join("system", token("admin", roles=["x", "system"])))["type"] == "joined"
        await bench.tell(alert_event(), stats_event(), stats_event("stats.bridge_latency_updated"))
        assert (await admin.hear())["type"] == "system_alert"
        assert [(await user.hear())["type"] for _ in range(2)] == ["chain_stats_update", "bridge_stats_update"]


async def test_statistics_may_be_public(redis_url: str) -> None:
    async with live(redis_url, public_stats=True) as bench, bench.page() as page:
        assert (await page.join("stats"))["type"] == "joined"
        assert (await page.join("user:u1"))["code"] == "token_required"
        await bench.tell(stats_event())
        assert (await page.hear())["type"] == "chain_stats_update"


async def test_who_left_hears_no_more(redis_url: str) -> None:
    async with live(redis_url) as bench, bench.page() as page:
        await page.join("user:u1", token())
        await page.join("stats")
        await page.say(type="leave_room", room="user:u1")
        assert await page.hear() == {"type": "left", "room": "user:u1"}
        await bench.tell(portfolio_event("u1"), stats_event())
        assert (await page.hear())["type"] == "chain_stats_update"


async def test_one_connection_is_one_users(redis_url: str) -> None:
    async with live(redis_url) as bench, bench.page() as page:
        await page.join("user:u1", token("u1"))
        assert (await page.join("user:u2", token("u2")))["code"] == "other_user"


# ---- tokens ------------------------------------------------------------------------------------------------------


def forged(header: dict[str, Any], signature: bytes = b"") -> str:
    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    claims = {"sub": "u1", "exp": int(time.time()) + 60}
    return ".".join([part(json.dumps(header).encode()), part(json.dumps(claims).encode()), part(signature)])


BOTH = Tokens(hs256_secret=SECRET, eddsa_public_key=PUBLIC_PEM, issuer="me", audience="moonxd", leeway_s=5)
GOOD: dict[str, Any] = {"iss": "me", "aud": ["other", "moonxd"]}


def confused() -> str:
    """Signed with the public key, which everybody has, as if it were the shared secret."""
    import hashlib
    import hmac

    head = forged({"alg": "HS256", "typ": "JWT"}).rsplit(".", 1)[0]
    signature = hmac.new(PUBLIC_PEM.encode(), head.encode(), hashlib.sha256).digest()
    return head + "." + base64.urlsafe_b64encode(signature).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (lambda: token(**GOOD), None),
        (lambda: token(**GOOD, key=ED25519, algorithm="EdDSA"), None),
        (lambda: token(iss="me", aud="moonxd", nbf=time.time() + 3, iat=time.time() + 3), None),
        (lambda: token(**GOOD | {"exp": time.time() - 2}), None),
        (lambda: token(**GOOD | {"exp": time.time() - 7}), "token_expired"),
        (lambda: jwt.encode({"sub": "u1", **GOOD}, SECRET), "token_invalid"),
        (lambda: jwt.encode({"exp": time.time() + 60, **GOOD}, SECRET), "token_invalid"),
        (lambda: token(**GOOD, nbf=time.time() + 60), "token_invalid"),
        (lambda: token(**GOOD, iat=time.time() + 60), "token_invalid"),
        (lambda: token(**GOOD | {"iss": "you"}), "token_invalid"),
        (lambda: token(**GOOD | {"aud": "else"}), "token_invalid"),
        (lambda: token(iss="me"), "token_invalid"),
        (lambda: token(**GOOD, key="x" * 40), "token_invalid"),
        (lambda: token(**GOOD, algorithm="HS512"), "token_invalid"),
        (lambda: forged({"alg": "none"}), "token_invalid"),
        (lambda: forged({"alg": "None", "typ": "JWT"}), "token_invalid"),
        (lambda: forged({"alg": ["HS256"]}), "token_invalid"),
        (lambda: forged({"alg": "EdDSA"}, b"x" * 64), "token_invalid"),
        (lambda: confused(), "token_invalid"),
        (lambda: "", "token_invalid"),
        (lambda: "a.b.c", "token_invalid"),
        (lambda: "x" * 9000, "token_invalid"),
        (lambda: "é.é.é", "token_invalid"),
    ],
)
async def test_which_tokens_let_in(redis_url: str, made: Callable[[], str], code: str | None) -> None:
    async with live(redis_url, tokens=BOTH) as bench, bench.page() as page:
        await page.say(type="join_room", room="user:u1", token=made())
        assert (await page.hear()).get("code") == code


@pytest.mark.parametrize("claims", [{"exp": 10**400}, {"exp": "soon"}, {"exp": []}, {"exp": float("inf")}])
def test_a_strange_expiry_is_refused_or_far_away(claims: dict[str, Any]) -> None:
    tokens = Tokens(hs256_secret=SECRET)
    if claims["exp"] == 10**400:
        assert tokens.check(token(**claims)).expires_at > time.time()
    else:
        with pytest.raises(TokenRefused):
            tokens.check(token(**claims))


def test_ids_may_be_numbers_and_roles_may_be_words() -> None:
    tokens = Tokens(hs256_secret=SECRET, user_claim="userId", role_claim="scope", system_role="ops")
    who = tokens.check(jwt.encode({"userId": 42, "scope": "read ops", "exp": time.time() + 9}, SECRET))
    assert who.user_id == "42"
    assert who.may_see_system


@pytest.mark.parametrize("pem", ["nonsense", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"])
def test_an_unusable_key_is_the_configurations_fault(pem: str) -> None:
    with pytest.raises(ConfigError, match="eddsa_public_key"):
        Tokens(eddsa_public_key=pem)


async def test_a_token_may_come_in_a_header_or_as_a_subprotocol(redis_url: str) -> None:
    async with live(redis_url) as bench:
        async with bench.page(extra_headers=[("authorization", f"Bearer {token()}")]) as page:
            assert (await page.join("user:u1"))["type"] == "joined"
        async with bench.page(subprotocols=["moonxd.v1", f"token.{token()}"]) as page:
            assert page.connection.subprotocol == "moonxd.v1"
            assert (await page.join("user:u1"))["type"] == "joined"
        async with bench.page(extra_headers=[("authorization", f"Bearer {token(exp=1)}")]) as page:
            assert (await page.hear())["code"] == "token_expired"
            assert await page.hear_code() == 4401


async def test_expiry_ends_the_connection_unless_a_newer_token_came(redis_url: str) -> None:
    tokens = Tokens(hs256_secret=SECRET, leeway_s=0)
    async with live(redis_url, tokens=tokens, ping_s=0.4) as bench, bench.page() as page, bench.page() as renewed:
        soon = token(exp=int(time.time()) + 2)
        assert (await page.join("user:u1", soon))["type"] == "joined"
        assert (await renewed.join("user:u1", soon))["type"] == "joined"
        assert (await renewed.join("user:u1", token()))["type"] == "joined"
        assert await page.hear_code() == 4401
        await bench.tell(portfolio_event("u1"))
        assert (await renewed.hear())["type"] == "portfolio_update"
        assert "token-expired" in bench.counts.ended


async def test_tokens_are_not_logged(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    bad = token(key="y" * 40)
    async with live(redis_url) as bench:
        async with bench.page(extra_headers=[("authorization", f"Bearer {bad}")]) as page:
            assert await page.hear_code() == 4401
        async with bench.page() as page:
            said = await page.join("user:u1", bad)
            assert bad[:20] not in json.dumps(said)
    assert bad[:20] not in caplog.text.replace(f"Bearer {bad}", "") or "moonxd" not in caplog.text
    assert not [
        record for record in caplog.records if record.name.startswith("moonxd") and bad[:20] in str(vars(record))
    ]


# ---- the door ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "allowed", "is_let_in"),
    [
        (None, (), True),
        ("http://localhost:3000", (), True),
        ("http://127.0.0.1", (), True),
        ("https://app.example", (), False),
        ("https://app.example", ("https://app.example",), True),
        ("https://APP.example", ("https://app.example",), True),
        ("https://app.example.evil", ("https://app.example",), False),
        ("http://app.example", ("https://app.example",), False),
        ("null", (), False),
        ("null", ("null",), True),
        ("https://evil.example", ("*",), True),
        ("http://[::1", (), False),
    ],
)
async def test_whose_pages_may_connect(
    redis_url: str, origin: str | None, allowed: tuple[str, ...], is_let_in: bool
) -> None:
    headers = [("origin", origin)] if origin else []
    async with live(redis_url, origins=frozenset(allowed)) as bench:
        if is_let_in:
            async with bench.page(extra_headers=headers) as page:
                assert (await page.join("user:u1", token()))["type"] == "joined"
        else:
            status, body = await bench.refusal(f"origin: {origin}")
            assert status == 403
            assert "origins" in body


async def test_a_feed_without_a_key_says_so(redis_url: str) -> None:
    async with live(redis_url, is_off=True) as bench:
        status, body = await bench.refusal()
        assert status == 503
        assert "set a key in [live]" in body


async def test_only_so_many_clients(redis_url: str) -> None:
    async with live(redis_url, max_clients=1) as bench:
        async with bench.page() as page:
            await page.join("user:u1", token())
            assert (await bench.refusal())[0] == 503
        await until(lambda: bench.counts.clients == 0)
        async with bench.page() as page:
            assert (await page.join("user:u1", token()))["type"] == "joined"


async def test_the_unix_socket_asks_for_a_token_too(redis_url: str, socket_path: Path) -> None:
    async with live(redis_url, socket=socket_path) as bench, bench.page() as page:
        assert (await page.join("user:u1"))["code"] == "token_required"
        assert (await page.join("user:u1", token()))["type"] == "joined"
        await bench.tell(portfolio_event("u1"))
        assert (await page.hear())["type"] == "portfolio_update"


async def test_the_other_paths_are_served_as_before(redis_url: str) -> None:
    """Requests in one byte at a time, of a path that begins alike, and of no WebSocket at all."""
    async with live(redis_url) as bench:
        for request, status in (
            (b"GET /v1/wsx HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", b"404"),
            (b"GET /v1 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", b"200"),
            (b"GET /v1/ws HTTP/1.1\r\nhost: localhost\r\n\r\n", b"426"),
            (b"GET /v1/ws?x=1 HTTP/1.1\r\nhost: localhost\r\n\r\n", b"426"),
            (b"GET /v1/ws \0\r\n\r\n", b"426"),
        ):
            answer = await bench.raw(request, bytewise=True)
            assert answer.split()[1] == status, (request, answer)
        async with bench.page(path="/v1/ws?page=1") as page:
            assert (await page.join("user:u1", token()))["type"] == "joined"
