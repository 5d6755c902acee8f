#!/usr/bin/env python3
"""Hostile clients against a real gateway, coordinator and fake workers: mutated heads and bodies,
what request smuggling is made of, slow, half-closed and idle connections, beside honest traffic.

usage: hostile.py [--requests 100000] [--idle 10000] [--seed 1] [--rounds 5] [--honest-factor 2]

As a test (some thousand requests, a quarter of a minute) it runs in tests/run; the whole hundred
thousand with ten thousand idle connections by hand, in about five minutes. It ends with 1 when the
gateway died, answered with anything but HTTP, ran a smuggled request, leaked descriptors, or grew.
The delays of an honest client, a process of its own, are printed, in turns with and without the
hostile ones; --honest-factor judges their p99.
"""

import argparse
import json
import os
import random
import resource
import select
import socket
import statistics
import subprocess
import sys
import threading
import time

from gateway_process import SLOWDOWN, Gateway, Http
from fakes import Coordinator, FakeWorker

MODEL = "demo-model"
BODY = json.dumps({"model": MODEL, "input": ["edit photos", "send email"], "dimensions": 64}).encode()
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
GROWTH_MAX_KB = 300_000
SLOW = 100  # Connections of an attack whose requests never come to an end.


def good(body=BODY, path=b"/v1/embeddings"):
    return (b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" %
            len(body)) + body


def chunked(*chunks):
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks)


# Ambiguous requests: a server that takes one differently from its neighbour would run what follows.
SMUGGLES = [
    HEAD + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
    HEAD + b"Content-Length: 0, %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
    HEAD + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % 5 + SMUGGLED,
    HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,
    HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + SMUGGLED,
    HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n" + SMUGGLED,
    HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    HEAD + b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    b"GET / HTTP/1.1\nHost: localhost\n\n" + SMUGGLED,
    HEAD + b"Content-Length: 0\r\n\n" + SMUGGLED,
    chunked(b"0;ext\r\n\r\n") + SMUGGLED,
    chunked(b"2;\n", b"xx\r\n0\r\n\r\n") + SMUGGLED,
    chunked(b"1\nx\n0\n\n") + SMUGGLED,
    chunked(b"1\r\nxx\r\n0\r\n\r\n") + SMUGGLED,
    chunked(b"-1\r\nx\r\n0\r\n\r\n") + SMUGGLED,
    chunked(b"0x1\r\nx\r\n0\r\n\r\n") + SMUGGLED,
    chunked(b"FFFFFFFFFFFFFFFFF\r\n") + SMUGGLED,
    chunked(b"1\r\nx\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n") + SMUGGLED,
    b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
]

MULTIPART = (b"--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--b\r\n"
             b"Content-Disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\r\n"
             b"{\"custom_id\":\"1\"}\n\r\n--b--\r\n")


def upload(body):
    return (b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; "
            b"boundary=b\r\nContent-Length: %d\r\n\r\n" % len(body)) + body


def mutated(rng, data):
    data = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(data)) if data else 0
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            del data[at:at + rng.randrange(1, 20)]
        elif kind == 2:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 20)))
        elif kind == 3:
            data[at:at] = data[at:at + rng.randrange(1, 40)] * rng.randrange(1, 30)
        elif kind == 4:
            data[at:at] = rng.choice([b"\r\n", b"\n", b"\0", b"\r", b": ", b"{", b"[" * 50, b'"',
                                      b"1e999", b"\\ud800", b"\xff\xfe", b"Content-Length: 5\r\n"])
        else:
            data = data[:at]
    return bytes(data)


JSON_PIECES = [b"{", b"}", b"[", b"]", b",", b":", b'"input"', b'"model"', b'"demo-model"', b"null",
               b"1", b"-1", b"1e400", b"true", b'"\\u0000"', b'"\\ud83d"', b'"a"', b" ", b"\xc3\x28",
               b'"encoding_format"', b'"base64"', b'"dimensions"', b"64", b"9" * 400, b"[" * 2000]


def hostile(rng):
    """(bytes, whether it must be refused, or is cut)."""
    kind = rng.randrange(10)
    if kind == 0:
        return rng.choice(SMUGGLES), True
    if kind == 1:
        return mutated(rng, good()), False
    if kind == 2:
        return good(mutated(rng, BODY)), False
    if kind == 3:
        return good(b"".join(rng.choice(JSON_PIECES) for _ in range(rng.randrange(40)))), False
    if kind == 4:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(400))), False
    if kind == 5:
        pieces = [b"%x\r\n" % len(p) + p + b"\r\n" for p in (BODY[:5], BODY[5:], b"")]
        return mutated(rng, chunked(*pieces)), False
    if kind == 6:
        path = rng.choice([b"/embed", b"/v2/embed", b"/api/embed", b"/tokenize", b"/v1/batches",
                           b"/%00", b"/..%2f..", b"/v1/models/" + b"x" * 3000, b"*"])
        return good(mutated(rng, BODY), path), False
    if kind == 7:
        return upload(mutated(rng, MULTIPART)), False
    if kind == 8:
        fields = b"".join(b"X-%d: %s\r\n" % (i, b"v" * rng.randrange(100))
                          for i in range(rng.randrange(600)))
        return b"GET / HTTP/1.1\r\nHost: localhost\r\n" + fields + b"\r\n", False
    return good() * rng.randrange(1, 20), False


def run_one(rng, address):
    """What is wrong with how the gateway took it; empty when nothing is."""
    data, must_refuse = hostile(rng)
    with socket.create_connection(address, timeout=30 * SLOWDOWN) as connection:
        got = b""
        ending = rng.randrange(4)
        try:
            if ending == 0 and len(data) > 2:  # In pieces.
                at = rng.randrange(1, len(data))
                connection.sendall(data[:at])
                connection.sendall(data[at:])
            else:
                connection.sendall(data)
            if ending == 1 and not must_refuse:
                return ""  # Gone before the answer.
            if ending == 2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(1 << 16):
                got += piece
        except (ConnectionError, BrokenPipeError):
            pass
        except TimeoutError:
            return f"no end of the answer to {data[:300]!r}"
    if got and not got.startswith(b"HTTP/1.1 "):
        return f"answered {data[:200]!r} with {got[:100]!r}"
    if must_refuse and (b"/smuggled" in got or got.count(b"HTTP/1.1 ") > 1):
        return f"took {data[:300]!r} apart: {got[:600]!r}"
    return ""


def be_honest(port):
    """The honest client, a process of its own: asks for cached vectors all the time, and tells of
    its delays since the last line that it was sent."""
    connection = Http(("127.0.0.1", port))
    delays, wrong = [], ""
    while True:
        began = time.monotonic()
        answer = connection.ask("POST", "/v1/embeddings", BODY)
        delays.append(time.monotonic() - began)
        if answer.status != 200:
            wrong = wrong or repr(answer)
        if readable(sys.stdin, 0.002):
            if not sys.stdin.readline():
                return
            delays.sort()
            print(json.dumps({"requests": len(delays), "wrong": wrong,
                              "p50_ms": 1000 * delays[len(delays) // 2],
                              "p99_ms": 1000 * delays[int(0.99 * (len(delays) - 1))]}), flush=True)
            delays = []


class Honest:
    """The process of be_honest."""

    def __init__(self, gateway):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--honest", str(gateway.address[1])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.wrong = ""

    def figures(self):
        """Of the time since the last call."""
        self.process.stdin.write("tell\n")
        self.process.stdin.flush()
        told = json.loads(self.process.stdout.readline())
        self.wrong = self.wrong or told["wrong"]
        return told

    def measure(self, run):
        self.figures()
        run()
        return self.figures()

    def stop(self):
        self.process.stdin.close()
        self.process.wait(30 * SLOWDOWN)


def slow_ones(gateway, count):
    """Heads and bodies that never come to an end."""
    connections = []
    for i in range(count):
        connection = socket.create_connection(gateway.address)
        connection.sendall(HEAD if i % 2 else HEAD + b"Content-Length: 1000\r\n\r\n{")
        connections.append(connection)
    return connections


def idle_ones(gateway, count):
    return [socket.create_connection(gateway.address) for _ in range(count)]


def readable(connection, patience_s):
    poll = select.poll()  # select() takes no descriptors beyond 1,023.
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(1000 * patience_s))


def storm(address, requests, seed, threads):
    wrong = []

    def work(number):
        os.nice(19)  # Of this thread alone. In life attackers bring processors of their own.
        rng = random.Random(seed * 1000 + number)
        for _ in range(requests // threads):
            problem = run_one(rng, address)
            if problem:
                wrong.append(problem)

    crew = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    return wrong


class Attack:
    """Idle, slow and hostile connections at once."""

    def __init__(self, gateway, idle, requests, seed):
        self.gateway, self.idle, self.requests, self.seed = gateway, idle, requests, seed
        self.connections, self.wrong = [], []
        self.after_kb = self.dead = 0

    def run(self):
        self.connections = idle_ones(self.gateway, self.idle)
        slow = slow_ones(self.gateway, SLOW)
        self.connections += slow
        self.wrong = storm(self.gateway.address, self.requests, self.seed, 2)
        self.after_kb = self.gateway.memory_kb()
        self.dead = sum(not readable(c, 10 * SLOWDOWN) for c in slow)

    def end(self):
        for connection in self.connections:
            connection.close()


def start_gateway(coordinator):
    gateway = Gateway(coordinator.clients, "--client-connections", "20000", "--head-s", "3",
                      "--body-s", "3", log_level="error")
    gateway.wait_ready()
    return gateway


def median_of(name, figures):
    return statistics.median(one[name] for one in figures)


def told(figures):
    return (f"{median_of('p50_ms', figures):.1f}, {median_of('p99_ms', figures):.1f} ms "
            f"({sum(one['requests'] for one in figures)} requests)")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5,
                        help="attacks of a share of the requests each, with a while without between")
    parser.add_argument("--alone-s", type=float, default=5, help="how long each such while is")
    parser.add_argument("--honest-factor", type=float, default=0,
                        help="end with 1 when the honest p99 grows by more than this")
    parser.add_argument("--elsewhere", action="store_true",
                        help="attack another gateway, too: what the machine's being busy costs")
    parser.add_argument("--honest", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.honest:
        be_honest(options.honest)
        return 0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    coordinator = Coordinator()
    worker = FakeWorker(coordinator.workers)
    gateway = start_gateway(coordinator)
    other = start_gateway(coordinator) if options.elsewhere else None
    honest = Honest(gateway)
    honest.figures()  # It runs.
    before_kb, before_fds = gateway.memory_kb(), gateway.descriptors()
    attacks, alone, beside, elsewhere = [], [], [], []
    for number in range(options.rounds):
        attacks.append(Attack(gateway, options.idle, options.requests // options.rounds,
                              options.seed + number))
        alone.append(honest.measure(lambda: time.sleep(options.alone_s)))
        beside.append(honest.measure(attacks[-1].run))
        attacks[-1].end()
        if other:
            attacks.append(Attack(other, options.idle, options.requests // options.rounds,
                                  options.seed + number))
            elsewhere.append(honest.measure(attacks[-1].run))
            attacks[-1].end()
    honest.stop()
    deadline = time.monotonic() + 30 * SLOWDOWN
    while gateway.descriptors() > before_fds and time.monotonic() < deadline:
        time.sleep(0.1)
    after_kb = max(attack.after_kb for attack in attacks)
    print(f"{options.requests} hostile requests, {options.idle} idle and {SLOW} slow connections; "
          f"honest p50, p99 {told(alone)} alone, {told(beside)} beside them; "
          f"memory {before_kb // 1024} -> {after_kb // 1024} MB")
    if other:
        other.stop()
        print(f"while another gateway is attacked: {told(elsewhere)}")
    problems = [wrong for attack in attacks for wrong in attack.wrong][:10]
    dead = sum(attack.dead for attack in attacks)
    if gateway.process.poll() is not None:
        problems.append(f"the gateway ended with {gateway.process.returncode}")
    if honest.wrong:
        problems.append(f"an honest request got {honest.wrong[0]}")
    factor = median_of("p99_ms", beside) / median_of("p99_ms", alone)
    if 0 < options.honest_factor < factor:
        problems.append(f"the honest client's p99 is {factor:.1f} times what it was alone")
    if dead:
        problems.append(f"{dead} slow connections were left open")
    if gateway.descriptors() > before_fds:
        problems.append(f"descriptors: {before_fds} before, {gateway.descriptors()} after")
    if after_kb - before_kb > GROWTH_MAX_KB * (SLOWDOWN if SLOWDOWN > 1 else 1):
        problems.append(f"grew from {before_kb} to {after_kb} KB")
    code = gateway.stop()
    if code != 0:
        problems.append(f"the gateway's end: {code}")
    worker.stop()
    coordinator.stop()
    for problem in problems:
        print("wrong:", problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
