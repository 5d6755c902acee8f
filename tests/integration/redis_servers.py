"""Real redis-servers in folders of their own, for tests. Each is ended by its process."""

import os
import shutil
import socket
import subprocess
import tempfile
import time

from wire import SLOWDOWN


def free_port(host="127.0.0.1"):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def has_ipv6():
    try:
        free_port("::1")
        return True
    except OSError:
        return False


class RedisServer:
    """On a free port of `host` and on a unix socket; keeps what `appendonly` says, in `folder`."""

    def __init__(self, *settings, host="127.0.0.1", appendonly="yes", users=()):
        self.folder = tempfile.mkdtemp(prefix="tessera-redis-")
        self.host, self.port = host, free_port(host)
        self.socket = os.path.join(self.folder, "redis.sock")
        self.settings = ["--bind", host, "--port", str(self.port), "--unixsocket", self.socket,
                         "--save", "", "--appendonly", appendonly,
                         "--appendfsync", "always", "--dir", self.folder, *settings]
        if users:
            with open(os.path.join(self.folder, "users.acl"), "w", encoding="utf-8") as file:
                file.write("".join(f"user {user}\n" for user in users))
            self.settings += ["--aclfile", os.path.join(self.folder, "users.acl")]
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(["redis-server", *self.settings], cwd=self.folder,
                                        stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30 * SLOWDOWN
        while True:
            try:
                if not self.command("PING").startswith("-LOADING"):
                    return
            except OSError:
                pass
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)

    def command(self, *words):
        """One command, whose answer is a line, without a login."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self.socket)
            connection.sendall(b"*%d\r\n" % len(words) + b"".join(
                b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words))
            return connection.recv(4096).decode(errors="replace").strip()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
