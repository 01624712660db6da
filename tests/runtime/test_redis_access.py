"""How to reach a Redis and get in: URLs, sockets, databases, passwords, users, TLS; and is it fit for a queue?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from moonxd.adapters.redis.client import RedisRefused, RedisUnavailable, open_redis
from moonxd.adapters.redis.server import check_server, judge, parse_info
from moonxd.adapters.redis.settings import RedisSettings, parse_redis_url
from moonxd.domain.errors import ConfigError
from tests.services.redis import RedisServer, TlsFiles, until

StartRedis = Callable[..., RedisServer]
SECRET = "s3cr:et/@"
real = pytest.mark.redis


async def _why_refused(settings: RedisSettings) -> str:
    async with open_redis(settings) as redis:
        with pytest.raises(RedisRefused) as raised:
            await redis.wait_connected()
        assert redis.state == "reconnecting"
    return str(raised.value)


# ---- URLs


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", RedisSettings()),
        ("redis://cache", RedisSettings(host="cache")),
        ("redis://[::1]:7000/3", RedisSettings(host="::1", port=7000, db=3)),
        ("redis://:p%40ss@h", RedisSettings(host="h", password="p@ss")),
        ("redis://bob:pw@h:1/", RedisSettings(host="h", port=1, username="bob", password="pw")),
        ("rediss://h?ssl_cert_reqs=none", RedisSettings(host="h", tls=True, tls_verify=False)),
        ("rediss://h?ssl_ca_certs=/ca.pem&family=0", RedisSettings(host="h", tls=True, tls_ca="/ca.pem")),
        ("unix:///run/redis.sock?db=2", RedisSettings(unix_path="/run/redis.sock", db=2)),
        ("unix://bob:pw@/run/r%20s", RedisSettings(unix_path="/run/r s", username="bob", password="pw")),
        (
            "redis+sentinel://:pw@a:1,b/main/4?sentinel_password=x",
            RedisSettings(
                sentinels=(("a", 1), ("b", 26379)),
                sentinel_service="main",
                sentinel_password="x",
                password="pw",
                db=4,
            ),
        ),
    ],
)
def test_urls(url: str, expected: RedisSettings) -> None:
    assert parse_redis_url(url) == expected


def test_overrides_win_over_the_url() -> None:
    assert parse_redis_url("redis://h/1", db=2, connections=3) == RedisSettings(host="h", db=2, connections=3)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:6379", "scheme"),
        (f"http://:{SECRET}@h", "scheme"),
        (f"redis://u:{SECRET.replace('/', '%2F')}@h:port", "port"),
        ("redis://h/one", "database"),
        ("redis://h?nosuch=1", "nosuch"),
        ("unix://", "path"),
        ("redis+sentinel://h:1", "service"),
        ("redis://bob@h", "without a password"),
        ("redis://h:99999", "port"),
    ],
)
def test_a_bad_url_is_explained_without_its_secrets(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        parse_redis_url(url)
    assert "s3cr" not in str(raised.value)


@pytest.mark.parametrize(
    "bad", [{"connections": 0}, {"port": 0}, {"db": -1}, {"command_timeout_s": 0}, {"sentinel_service": "x"}]
)
def test_impossible_settings_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        RedisSettings(**bad)  # type: ignore[arg-type]


def test_settings_never_show_their_secrets() -> None:
    settings = RedisSettings(username="bob", password=SECRET, sentinel_password=SECRET)
    shown = f"{settings!r} {settings} {settings.where} {list(settings.__rich_repr__())}"
    assert "s3cr" not in shown
    assert "bob" in shown


# ---- getting in


@real
async def test_unix_socket_and_database_number(redis_server: RedisServer, redis_url: str) -> None:
    async with open_redis(parse_redis_url(redis_server.socket_url, db=7)) as redis:
        await redis.call("SET", "a", 1)
    async with open_redis(parse_redis_url(redis_url.removesuffix("/0") + "/7")) as redis:
        assert await redis.call("GET", "a") == b"1"
    async with open_redis(parse_redis_url(redis_url)) as redis:
        assert await redis.call("GET", "a") is None


@real
async def test_a_database_that_does_not_exist(redis_url: str) -> None:
    assert "database 99" in await _why_refused(parse_redis_url(redis_url, db=99))


@real
async def test_password(start_redis: StartRedis) -> None:
    server = start_redis(password=SECRET)
    address = f"redis://127.0.0.1:{server.port}"
    async with open_redis(parse_redis_url(address, password=SECRET)) as redis:
        assert await redis.call("PING") == b"PONG"
        assert await redis.block("BZPOPMIN", "m", 0.01, timeout=0.01) is None
    assert "wants a password" in await _why_refused(parse_redis_url(address))
    wrong = await _why_refused(parse_redis_url(address, password="wr0ng"))
    assert "'default'" in wrong
    assert "wr0ng" not in wrong


@real
async def test_acl_user(start_redis: StartRedis) -> None:
    server = start_redis(acl_user=("worker", SECRET))
    settings = parse_redis_url(f"redis://127.0.0.1:{server.port}", username="worker", password=SECRET)
    async with open_redis(settings) as redis:
        assert await redis.call("ACL", "WHOAMI") == b"worker"
    for user, password in (("worker", "wr0ng"), ("nobody", SECRET)):
        wrong = await _why_refused(
            parse_redis_url(f"redis://127.0.0.1:{server.port}", username=user, password=password)
        )
        assert repr(user) in wrong
        assert password not in wrong


@real
async def test_a_password_for_a_server_without_one(redis_url: str) -> None:
    wrong = await _why_refused(parse_redis_url(redis_url, password="wr0ng"))
    assert "no password set" in wrong
    assert "wr0ng" not in wrong


@real
async def test_a_call_says_why_it_was_refused(start_redis: StartRedis) -> None:
    server = start_redis(password=SECRET)
    async with open_redis(RedisSettings(host="127.0.0.1", port=server.port, command_timeout_s=0.3)) as redis:
        with pytest.raises(RedisUnavailable, match="wants a password") as raised:
            await redis.call("PING")
    assert not raised.value.maybe_executed


@real
async def test_a_password_that_is_set_right_later_lets_us_in(start_redis: StartRedis) -> None:
    server = start_redis(acl_user=("worker", "other"))
    settings = parse_redis_url(f"redis://127.0.0.1:{server.port}", username="worker", password="right")
    async with open_redis(settings) as redis:
        with pytest.raises(RedisRefused):
            await redis.wait_connected()
        server.command("ACL", "SETUSER", "worker", ">right")
        assert await redis.call("PING") == b"PONG"


# ---- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls_files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    folder, leaf = tmp_path_factory.mktemp("tls"), authority.issue_cert("127.0.0.1", "localhost")
    files = TlsFiles(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(str(files.ca))
    leaf.cert_chain_pems[0].write_to_path(str(files.cert))
    leaf.private_key_pem.write_to_path(str(files.key))
    return files


@real
async def test_tls(start_redis: StartRedis, tls_files: TlsFiles) -> None:
    server = start_redis(tls=tls_files, password=SECRET)
    settings = RedisSettings(host="127.0.0.1", port=server.port, password=SECRET, tls=True, tls_ca=str(tls_files.ca))
    async with open_redis(settings) as redis:
        big = "x" * 3_000_000
        await redis.call("SET", "a", big)
        assert await redis.many([("GET", "a")] * 3) == [big.encode()] * 3
        assert await redis.block("BZPOPMIN", "m", 0.01, timeout=0.01) is None
        server.kill()
        await until(lambda: redis.state == "reconnecting")
        server.start()
        assert await redis.call("PING") == b"PONG"


@real
async def test_a_certificate_of_an_unknown_authority_is_refused(start_redis: StartRedis, tls_files: TlsFiles) -> None:
    server = start_redis(tls=tls_files)
    settings = RedisSettings(host="127.0.0.1", port=server.port, tls=True)
    assert "tls_ca" in await _why_refused(settings)


@real
async def test_verification_can_be_switched_off(start_redis: StartRedis, tls_files: TlsFiles) -> None:
    server = start_redis(tls=tls_files)
    async with open_redis(parse_redis_url(f"rediss://127.0.0.1:{server.port}?ssl_cert_reqs=none")) as redis:
        assert await redis.call("PING") == b"PONG"


@real
async def test_client_certificate(start_redis: StartRedis, tls_files: TlsFiles) -> None:
    server = start_redis(tls=tls_files, arguments=["--tls-auth-clients", "yes"])
    settings = RedisSettings(
        host="127.0.0.1",
        port=server.port,
        tls=True,
        tls_ca=str(tls_files.ca),
        tls_cert=str(tls_files.cert),
        tls_key=str(tls_files.key),
    )
    async with open_redis(settings) as redis:
        assert await redis.call("PING") == b"PONG"
    without = RedisSettings(host="127.0.0.1", port=server.port, tls=True, tls_ca=str(tls_files.ca))
    assert "client certificate" in await _why_refused(without)


@real
async def test_tls_to_a_port_that_speaks_none(redis_server: RedisServer, redis_url: str) -> None:
    settings = RedisSettings(host="127.0.0.1", port=redis_server.port, tls=True, connect_timeout_s=2)
    async with open_redis(settings) as redis:
        with pytest.raises((RedisRefused, RedisUnavailable)):
            await redis.wait_connected()


async def test_missing_certificate_files_are_named(tmp_path: Path) -> None:
    settings = RedisSettings(tls=True, tls_ca=str(tmp_path / "absent.pem"))
    with pytest.raises(ConfigError, match=r"absent\.pem"):
        await open_redis(settings).__aenter__()


# ---- fitness


@real
async def test_a_fit_server(redis_url: str) -> None:
    async with open_redis(parse_redis_url(redis_url)) as redis:
        info = await check_server(redis)
    assert info.version.startswith("7.")
    assert info.warnings == ()


@real
async def test_a_server_that_may_evict_jobs_is_warned_about(start_redis: StartRedis) -> None:
    server = start_redis(arguments=["--maxmemory-policy", "allkeys-lru"])
    async with open_redis(parse_redis_url(server.url)) as redis:
        [warning] = (await check_server(redis)).warnings
    assert "allkeys-lru" in warning
    assert "noeviction" in warning


@real
async def test_a_replica_is_refused(start_redis: StartRedis) -> None:
    replica = start_redis(replica_of=start_redis())
    async with open_redis(parse_redis_url(replica.url)) as redis:
        with pytest.raises(RedisRefused, match="read-only replica"):
            await check_server(redis)


@real
async def test_a_user_who_may_not_ask_still_gets_in(start_redis: StartRedis) -> None:
    server = start_redis()
    server.command("ACL", "SETUSER", "small", "on", ">pw", "~*", "+@all", "-info")
    settings = parse_redis_url(server.url, username="small", password="pw")
    async with open_redis(settings) as redis:
        info = await check_server(redis)
    assert info.version == "unknown"
    assert "NOPERM" in info.warnings[0]


@real
async def test_the_embedded_binary_is_fit_too(start_redis: StartRedis, embedded_redis_binary: str) -> None:
    server = start_redis(binary=embedded_redis_binary)
    async with open_redis(parse_redis_url(server.url)) as redis:
        assert (await check_server(redis)).warnings == ()


def test_versions() -> None:
    assert judge({"redis_version": "6.2.0"}, "here").warnings == ()
    assert judge({"redis_version": "10.0.1"}, "here").warnings == ()
    with pytest.raises(RedisRefused, match=r"6\.0\.20.*6\.2 or newer"):
        judge({"redis_version": "6.0.20"}, "here")
    with pytest.raises(RedisRefused, match="cluster"):
        judge({"redis_version": "7.2.0", "cluster_enabled": "1"}, "here")


def test_info_is_read_line_by_line() -> None:
    assert parse_info("# Server\r\nredis_version:7.0.1\r\nos:a:b\r\n\r\n") == {"redis_version": "7.0.1", "os": "a:b"}
