"""A gateway process, and HTTP as bytes, for the tests of this folder. The coordinator and the fake
workers are those of tests/integration."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../integration"))
from fakes import BIN_DIR, MODEL_DIR, SLOWDOWN  # noqa: E402, F401

GATEWAY = os.path.join(BIN_DIR, "tessera-gateway")


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:300]!r}"


class Http:
    """One connection; reads answers to the byte, so that what follows one is seen."""

    def __init__(self, address, timeout_s=60 * SLOWDOWN, tls=None):
        self.socket = socket.create_connection(address, timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.buffer = b""

    def send(self, data):
        self.socket.sendall(data)

    def _more(self):
        data = self.socket.recv(1 << 16)
        self.buffer += data
        return data

    def _line(self):
        while b"\r\n" not in self.buffer:
            if not self._more():
                raise ConnectionError(f"the connection ended in a line: {self.buffer[:100]!r}")
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def _take(self, count):
        while len(self.buffer) < count:
            if not self._more():
                raise ConnectionError("the connection ended in a body")
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def answer(self, head=False):
        version, status, _ = (self._line() + b" ").split(b" ", 2)
        assert version == b"HTTP/1.1", version
        headers = {}
        while line := self._line():
            name, value = line.split(b":", 1)
            headers[name.strip().lower().decode()] = value.strip().decode()
        status = int(status)
        if status == 100:
            return Answer(100, headers, b"")
        if head or status in (204, 304):
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self._line(), 16):
                body += self._take(size)
                assert self._take(2) == b"\r\n"
            assert self._line() == b""
        elif "content-length" in headers:
            body = self._take(int(headers["content-length"]))
        else:
            while self._more():
                pass
            body, self.buffer = self.buffer, b""
        return Answer(status, headers, body)

    def at_end(self):
        """Whether the server has closed its direction, with nothing more to say."""
        try:
            return self.buffer == b"" and self._more() == b""
        except ConnectionError:
            return True

    def ask(self, method, path, body=None, headers=None):
        fields = {"Host": "localhost"}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            fields["Content-Length"] = str(len(body))
        fields.update(headers or {})
        lines = [f"{method} {path} HTTP/1.1"] + [f"{k}: {v}" for k, v in fields.items()]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))
        return self.answer(head=method == "HEAD")

    def close(self):
        self.socket.close()


class Gateway:
    """The real process on a free port."""

    def __init__(self, coordinator, *flags, listen="127.0.0.1:0", log_level="warn"):
        self.dir = tempfile.mkdtemp(prefix="tessera-gateway-")
        ports = os.path.join(self.dir, "gateway.json")
        self.process = subprocess.Popen(
            [GATEWAY, "--listen", listen, "--coordinator", coordinator, "--port-file", ports,
             "--log-level", log_level] + list(flags))
        deadline = time.monotonic() + 60 * SLOWDOWN
        while not os.path.exists(ports):
            assert self.process.poll() is None, "the gateway ended at start"
            assert time.monotonic() < deadline, "the gateway did not start"
            time.sleep(0.01)
        with open(ports, encoding="utf-8") as file:
            self.url = json.load(file)["url"]
        self.address = ("127.0.0.1", int(self.url.rsplit(":", 1)[1]))

    def connect(self, **kind):
        return Http(self.address, **kind)

    def ask(self, method, path, body=None, headers=None, **kind):
        connection = self.connect(**kind)
        try:
            return connection.ask(method, path, body, headers)
        finally:
            connection.close()

    def wait_ready(self, **kind):
        deadline = time.monotonic() + 60 * SLOWDOWN
        while self.ask("GET", "/health/ready", **kind).status != 200:
            assert time.monotonic() < deadline, "the gateway is not ready"
            time.sleep(0.05)

    def memory_kb(self):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def hang_up(self):
        self.process.send_signal(signal.SIGHUP)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(60 * SLOWDOWN)
        shutil.rmtree(self.dir, ignore_errors=True)
        return code


def make_certificate(folder):
    """A certificate of its own for localhost; gives (certificate, key, client context)."""
    certificate, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                    "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key,
                    "-out", certificate], check=True, capture_output=True)
    return certificate, key, ssl.create_default_context(cafile=certificate)
