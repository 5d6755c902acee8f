"""A coordinator process and fake workers for tests. A fake worker's vector is a function of the
token ids, so that a wrong vector is seen whatever way it came."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import zlib

import numpy as np

from wire import ROOT, SLOWDOWN, Peer

MODEL_DIR = os.path.join(ROOT, "deploy/data/demo-model")
BIN_DIR = os.environ.get("TESSERA_BIN", os.path.join(ROOT, "build/release/bin"))
HIDDEN_SIZE = 256
VOCAB_SIZE = 16003
FINAL_TOKEN = 16000


def vector_of(ids):
    """Unit float16 vector of token ids."""
    seed = zlib.crc32(np.asarray(ids, "<i4").tobytes())
    row = np.random.Generator(np.random.PCG64(seed)).standard_normal(HIDDEN_SIZE)
    return (row / np.linalg.norm(row)).astype(np.float16)


class FakeWorker:
    """Serves on a thread of its own. `delay_s` a batch; `on_batch(worker, batch)` may refuse."""

    def __init__(self, address, name="fake", delay_s=0.0, on_batch=None, knows_ledgers=True, **hello):
        self.address, self.name, self.delay_s, self.on_batch = address, name, delay_s, on_batch
        self.hello = hello
        self.knows_ledgers = knows_ledgers  # Workers of earlier versions follow terms only.
        self.ledger_id, self.term, self.registered = "", 0, False
        self.followed = []  # Ledger and term of each welcome that was followed.
        self.batches = 0
        self.sequences = []  # Ids of everything computed.
        self.refusal = None
        self.welcomed = threading.Event()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        with open(os.path.join(MODEL_DIR, "tokenizer.json"), "rb") as file:
            tokenizer_hash = hashlib.blake2b(file.read(), digest_size=32).hexdigest()
        hello = dict(name=self.name, device="fake", model="demo-model", fingerprint="ab" * 32,
                     tokenizer_hash=tokenizer_hash, hidden_size=HIDDEN_SIZE, vocab_size=VOCAB_SIZE,
                     group_size=1, max_batch_tokens=4096, max_batch_sequences=512, max_seqlen=4096,
                     slots=2)
        hello.update(self.hello)
        peer = self.register(hello)
        heard = pinged = time.monotonic()
        while not self.stopped.is_set():
            try:
                message = peer.receive(0.05)
            except TimeoutError:
                now = time.monotonic()
                if now - heard > 1.5 * SLOWDOWN:  # The coordinator is gone: a fresh connection, as real ones.
                    peer.close()
                    peer = self.register(hello)
                    heard = now
                elif self.registered and now - pinged > 0.2:
                    peer.send("Ping", nonce=1)
                    pinged = now
                continue
            heard = time.monotonic()
            if message["type"] == "WorkerWelcome":
                self.follow(message)
            elif message["type"] == "ErrorReply" and message["code"] != 10:
                self.refusal = message
                self.welcomed.set()
            elif message["type"] == "Ping":
                peer.send("Pong", nonce=message.get("nonce", 0))
            elif message["type"] == "Batch" and self.registered and message["epoch"] >= self.term:
                self.answer(peer, message)
        peer.close()

    def register(self, hello):
        self.registered = False
        peer = Peer(self.address)
        seen = dict(ledger_id=self.ledger_id, term_seen=self.term) if self.knows_ledgers else {}
        peer.send("WorkerHello", **{**seen, **hello})
        return peer

    def follow(self, welcome):
        same = not self.knows_ledgers or welcome["ledger_id"] == self.ledger_id
        if same and welcome["epoch"] < self.term:
            return
        self.ledger_id, self.term, self.registered = welcome["ledger_id"], welcome["epoch"], True
        self.followed.append((self.ledger_id, self.term))
        self.welcomed.set()

    def answer(self, peer, batch):
        if self.on_batch and not self.on_batch(self, batch):
            return
        if self.delay_s:
            time.sleep(self.delay_s)
        ids = np.frombuffer(batch["payload"], "<i4")
        rows, at = [], 0
        for length in batch["lengths"]:
            self.sequences.append(tuple(ids[at:at + length].tolist()))
            rows.append(vector_of(ids[at:at + length]))
            at += length
        self.batches += 1
        peer.send("BatchResult", np.stack(rows).tobytes(), epoch=batch["epoch"],
                  batch_id=batch["batch_id"], attempt=batch["attempt"],
                  codes=[0] * len(rows), compute_us=1)

    def stop(self):
        self.stopped.set()
        self.thread.join()


class HangingRedis:
    """Accepts connections and, where `greets`, answers their PING; nothing else is ever answered."""

    def __init__(self, greets):
        self.greets = greets
        self.lookups = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                self.lookups += data.count(b"MGET")
                if self.greets and b"PING" in data:
                    connection.sendall(b"+PONG\r\n")

    def close(self):
        self.listener.close()


class Proxy:
    """A TCP connection in the middle that can be cut: what is under way is lost with it."""

    def __init__(self, address):
        self.target = ("127.0.0.1", int(address.rsplit(":", 1)[1]))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        self.pairs = []
        self.hold_answers = threading.Event()  # Set: nothing goes back any more.
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(self.target)
            self.pairs.append((near, far))
            threading.Thread(target=self.copy, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self.copy, args=(far, near, True), daemon=True).start()

    def copy(self, source, target, is_answer):
        try:
            while data := source.recv(1 << 16):
                if not (is_answer and self.hold_answers.is_set()):
                    target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self):
        """Ends all connections; those made afterwards are whole."""
        pairs, self.pairs = self.pairs, []
        self.hold_answers.clear()
        for near, far in pairs:
            for end in (near, far):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.close()
        self.cut()


class Coordinator:
    """The real process with a private redis-server in a temporary folder."""

    def __init__(self, *flags, data_dir=None, heartbeat_ms=200, environment=None, log=None):
        self.own_dir = data_dir is None
        self.dir = data_dir or tempfile.mkdtemp(prefix="tessera-")
        self.flags = list(flags)
        self.heartbeat_ms = heartbeat_ms
        self.environment = {**os.environ, **(environment or {})}
        self.log = log  # A path, for what it prints.
        self.clients = self.workers = "tcp://127.0.0.1:*"
        self.process = None
        self.start()

    def start(self):
        ports = os.path.join(self.dir, "ports.json")
        if os.path.exists(ports):
            os.remove(ports)
        self.process = subprocess.Popen(
            [os.path.join(BIN_DIR, "tessera-coordinator"), "--listen", self.clients,
             "--worker-listen", self.workers, "--model", MODEL_DIR, "--data-dir",
             os.path.join(self.dir, "data"), "--port-file", ports, "--heartbeat-ms",
             str(self.heartbeat_ms * SLOWDOWN), "--log-level", "info" if self.log else "warn"]
            + self.flags, env=self.environment,
            **({"stdout": open(self.log, "ab"), "stderr": subprocess.STDOUT} if self.log else {}))
        deadline = time.monotonic() + 60 * SLOWDOWN
        while not os.path.exists(ports):
            assert self.process.poll() is None, "the coordinator ended at start"
            assert time.monotonic() < deadline, "the coordinator did not start"
            time.sleep(0.02)
        with open(ports, encoding="utf-8") as file:
            addresses = json.load(file)
        self.clients, self.workers = addresses["clients"], addresses["workers"]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def redis_pid(self):
        out = subprocess.run(["pgrep", "-P", str(self.process.pid), "redis-server"],
                             capture_output=True, text=True, check=True)
        socket_path = os.path.join(self.dir, "data", "redis.sock").encode()
        for pid in out.stdout.split():  # Another one keeps the cache.
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if socket_path in file.read():
                    return int(pid)
        raise AssertionError("no redis-server keeps the jobs")

    def redis(self, *words):
        """One command to the private server, whose answer is a line."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(os.path.join(self.dir, "data", "redis.sock"))
            connection.sendall(" ".join(words).encode() + b"\r\n")
            return connection.recv(1000).decode().strip()

    def memory_kb(self):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

    def stop(self):
        self.process.terminate()
        code = self.process.wait(60)
        if self.own_dir:
            shutil.rmtree(self.dir, ignore_errors=True)
        return code


class JobClient:
    """Submits chunks and takes results, with resending and reopening, as real clients do."""

    def __init__(self, address, key, chunks, tenant="", **spec):
        self.address, self.key, self.chunks, self.tenant, self.spec = address, key, chunks, tenant, spec
        self.results = {}
        self.peer = None

    def connect(self):
        if self.peer:
            self.peer.close()
        self.peer = Peer(self.address)
        self.peer.hello(self.tenant)
        request_id = self.peer.next_id()
        self.peer.send("OpenJob", request_id=request_id, job_key=self.key, spec=self.spec)
        opened = self.peer.wait_for("JobOpened", "ErrorReply",
                                    where=lambda m: m.get("request_id") == request_id)
        assert opened["type"] == "JobOpened", opened
        self.job_id = opened["job_id"]
        self.window = opened["window_chunks"]
        self.accepted = set(_values(opened["accepted"]))
        self.state = opened["state"]
        return opened

    def submit(self, number, items=None):
        from wire import block
        fields, payload = block(self.chunks[number] if items is None else items)
        self.peer.send("SubmitChunk", payload, job_id=self.job_id, chunk=number, items=fields)

    def run(self, timeout_s=120, silence_s=4, acknowledge=True, stop_when=None):
        """Until every chunk has a result (and the job is done), or stop_when(self)."""
        if not self.peer:
            self.connect()
        deadline = time.monotonic() + timeout_s * SLOWDOWN
        in_flight = set()
        closed = False
        while time.monotonic() < deadline:
            if stop_when and stop_when(self):
                return None
            for number in range(len(self.chunks)):
                if number not in self.accepted and number not in in_flight and \
                        len((self.accepted | in_flight) - set(self.results)) < self.window:
                    self.submit(number)
                    in_flight.add(number)
            if len(self.accepted) == len(self.chunks) and not closed:
                self.peer.send("CloseJob", request_id=self.peer.next_id(), job_id=self.job_id,
                               chunks=len(self.chunks))
                closed = True
            try:
                message = self.peer.receive(silence_s * SLOWDOWN)
            except TimeoutError:
                self.connect()
                in_flight, closed = set(), False
                continue
            kind = message["type"]
            if kind == "ChunkAck":
                in_flight.discard(message["chunk"])
                if message["code"] == 0:
                    self.accepted.add(message["chunk"])
                else:
                    assert message["code"] in (9, 10), message
                    time.sleep(0.02)
            elif kind == "ChunkResult":
                self.results.setdefault(message["chunk"], message)
                if acknowledge:
                    self.peer.send("ResultAck", job_id=self.job_id, chunk=message["chunk"])
            elif kind == "JobUpdate" and message["progress"]["state"] >= 2:
                return message["progress"]
        raise TimeoutError(f"job not done: {len(self.results)} of {len(self.chunks)} chunks")


def _values(pairs):
    for first, last in zip(pairs[::2], pairs[1::2]):
        yield from range(first, last + 1)
