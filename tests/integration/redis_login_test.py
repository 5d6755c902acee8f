"""The coordinator process at redis-servers that ask who comes: users, passwords of any characters,
databases, sockets, IPv6, and that no secret is ever printed."""

import os
import subprocess
import urllib.parse

import pytest

from fakes import BIN_DIR, MODEL_DIR, Coordinator, FakeWorker, JobClient
from redis_servers import RedisServer, has_ipv6

SECRET = "p@ss/w%rd:?#&=+ \"x"  # All that has a meaning in a URL.
USERS = ("default off",
         f"alice on #{__import__('hashlib').sha256(SECRET.encode()).hexdigest()} ~tessera:* +@all "
         "-@dangerous")
QUOTED = urllib.parse.quote(SECRET, safe="")


@pytest.fixture
def server():
    server = RedisServer(users=USERS)
    yield server
    server.stop()


def run_a_job(coordinator, name="job"):
    worker = FakeWorker(coordinator.workers)
    job = JobClient(coordinator.clients, name, [[[i, 5]] for i in range(3)])
    job.run()
    worker.stop()
    assert sorted(job.results) == [0, 1, 2]
    assert coordinator.stop() == 0


def no_secret_in(text):
    for secret in (SECRET, QUOTED, "p@ss", "p%40ss", SECRET[5:], QUOTED[10:]):
        assert secret not in text, text


@pytest.mark.parametrize("how", ["url", "database", "socket", "file", "variable"])
def test_a_user_with_any_password_gets_in(server, how, tmp_path):
    log = tmp_path / "log"
    password_file = tmp_path / "password"
    password_file.write_text(SECRET + "\n")
    password_file.chmod(0o600)
    bare = f"redis://alice:@127.0.0.1:{server.port}/2"
    flags, environment = {
        "url": ([f"redis://alice:{QUOTED}@127.0.0.1:{server.port}"], {}),
        "database": ([f"redis://alice:{QUOTED}@127.0.0.1:{server.port}/7"], {}),
        "socket": ([f"unix://alice:{QUOTED}@{server.socket}?db=3"], {}),
        "file": ([bare, "--redis-password-file", str(password_file)], {}),
        "variable": ([bare], {"TESSERA_REDIS_PASSWORD": SECRET}),
    }[how]
    run_a_job(Coordinator("--redis", *flags, environment=environment, log=log))
    printed = log.read_text()
    no_secret_in(printed)
    assert ("ps shows it" in printed) == (how in ("url", "database", "socket"))
    assert "alice" not in printed.split("options")[1].split("[")[0], "settings name no user"


def test_databases_are_apart():
    server = RedisServer()
    first = Coordinator("--redis", f"redis://127.0.0.1:{server.port}/1")
    second = Coordinator("--redis", f"unix:{server.socket}?db=2")  # Else the first were fenced.
    run_a_job(second)
    run_a_job(first)
    assert "db1:" in server.command("INFO", "keyspace")
    assert "db0:" not in server.command("INFO", "keyspace")
    server.stop()


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_an_ipv6_address_in_brackets():
    server = RedisServer("--requirepass", "pw", host="::1")
    run_a_job(Coordinator("--redis", f"redis://:pw@[::1]:{server.port}"))
    server.stop()


def refusal(*flags, environment=None):
    result = subprocess.run(
        [os.path.join(BIN_DIR, "tessera-coordinator"), "--model", MODEL_DIR, "--listen",
         "tcp://127.0.0.1:*", "--worker-listen", "tcp://127.0.0.1:*", *flags],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, **(environment or {})})
    assert result.returncode == 1
    no_secret_in(result.stdout + result.stderr)
    assert result.stderr.count("\n") >= 1
    return result.stderr.splitlines()[-1]


def test_what_is_wrong_with_a_login_is_said_without_it(server, tmp_path):
    host = f"127.0.0.1:{server.port}"
    off = ("--log-level", "off")
    assert "WRONGPASS" in refusal("--redis", f"redis://alice:wrong@{host}", *off)
    assert "WRONGPASS" in refusal("--redis", f"redis://:{QUOTED}@{host}", *off), "the default user"
    assert "NOAUTH" in refusal("--redis", f"redis://{host}", *off)
    assert "TLS tunnel" in refusal("--redis", f"rediss://alice:{QUOTED}@{host}")
    assert "neither redis:// nor unix:" in refusal("--redis", f"https://alice:{QUOTED}@{host}")
    assert "only db=NUMBER" in refusal("--redis", f"redis://{host}?password={QUOTED}")
    assert "port is not a number" in refusal("--redis", f"redis://alice:{QUOTED}")
    assert "user without a password" in refusal("--redis", f"redis://alice:@{host}")
    assert "***" in refusal("--rediss", f"redis://alice:{SECRET}@{host}"), "a mistyped option"
    two = tmp_path / "two"
    two.write_text(f"{SECRET}\n{SECRET}\n")
    assert "one line" in refusal("--redis", f"redis://{host}", "--redis-password-file", str(two))
    assert "none is" in refusal("--redis-password-file", str(two))


def test_a_config_file_hides_a_password_from_ps(server, tmp_path):
    config, log = tmp_path / "coordinator.toml", tmp_path / "log"
    config.write_text(f'redis = "redis://alice:{QUOTED}@127.0.0.1:{server.port}"\n')
    coordinator = Coordinator("--config", str(config), log=log)
    run_a_job(coordinator)
    printed = log.read_text()
    no_secret_in(printed)
    assert "ps shows" not in printed
    assert f'redis="redis://127.0.0.1:{server.port}"' in printed
