#!/usr/bin/env python3
"""Random sequences of calls, interruptions, drops, forks and resumes of the Python client against
one live cluster: every row must be the right one, and nothing may take longer than its timeout
plus a second.

usage: python_sequences.py [--sequences N] [--seed S] [--jobs J] [--address A]

Each sequence is a process with a seed of its own; one that fails prints it, and `--seed S
--sequences 1` runs it again (a signal's moment is the machine's, not the seed's). tests/run runs
60 of them in under a minute; 1,000 take some minutes and are run by hand. Vectors are compared,
bit by bit, with what the coordinator gives to a peer that is not the client under test.
"""

import argparse
import collections
import contextlib
import faulthandler
import gc
import json
import os
import pickle
import random
import select
import signal
import subprocess
import sys
import threading
import time
import traceback

import cluster
import numpy as np
import wire

import tessera
from tessera import Client, ErrorCode, JobConflict, TesseraError

TEXTS = 700
TIMEOUT_S = 20.0
SLACK_S = 1.0
# Less than the client waits before it says anything again.
STEP_LIMIT_S = 9.5 * wire.SLOWDOWN
SEQUENCE_LIMIT_S = 240
SPECS = ({}, {"dimensions": 64}, {"float16": True}, {"query": True})
PACKAGE = os.path.dirname(tessera.__file__)


class Interrupt(BaseException):
    """Not an error of anybody: as KeyboardInterrupt."""


class Alarm(Exception):
    """What a handler of somebody else's may raise."""


class Wrong(Exception):
    """What must not be."""


def check(condition, *what):
    if not condition:
        raise Wrong(" ".join(map(str, what)))


# --- interruptions


class Interruption:
    """Raises once, at a random moment, out of a signal handler or after a random number of steps
    of the client's own code."""

    def __init__(self, rng):
        self.kind = rng.choice((KeyboardInterrupt, Interrupt, Alarm))
        self.by_signal = rng.random() < 0.6
        self.delay_s = 10 ** rng.uniform(-5, -1.3)
        self.steps = int(10 ** rng.uniform(0, 3.7))
        self.armed = False

    def __enter__(self):
        self.armed = True
        if self.by_signal:
            signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, self.delay_s)
        else:
            sys.settrace(self._trace)

    def __exit__(self, *_):
        self.armed = False
        sys.settrace(None)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _ring(self, *_):
        if self.armed:
            self.armed = False
            raise self.kind("rung")

    def _trace(self, frame, event, _):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame, event, _):
        if event == "opcode" and self.armed:
            self.steps -= 1
            if self.steps <= 0:
                self.armed = False
                raise self.kind("stepped")
        return self._step


# --- what is known of a job


class Record:
    """A key, its items, and the rows that any run has got."""

    def __init__(self, rng, texts):
        self.key = f"sequence-{os.getpid()}-{rng.random()}"
        self.items = rng.choices(range(texts), k=rng.choice((0, 1, 7, 30, 90, 160)))
        self.chunk_items = rng.choice((1, 3, 10, 40))
        self.spec = rng.randrange(len(SPECS))
        self.rows = set()
        self.job = None
        self.rivals = 0  # Children and interrupted submits that may yet take the job from us, once.
        self.done = False


class Sequence:
    def __init__(self, address, reference, texts, seed):
        self.address = address
        self.reference = reference
        self.texts = texts
        self.rng = random.Random(seed)
        self.clients = []
        self.records = []
        self.log = []
        self.counts = collections.Counter()
        self.longest = (0.0, "none")

    def run(self):
        for _ in range(self.rng.randint(5, 14)):
            step = self.rng.choices(*zip(*STEPS))[0]
            self.log.append(step.__name__)
            self.counts[step.__name__] += 1
            began = time.monotonic()
            step(self)
            took = time.monotonic() - began
            self.longest = max(self.longest, (took, step.__name__))
            check(took < STEP_LIMIT_S, f"{step.__name__} took {took:.1f} s: it missed an answer")
        for record in self.records:
            self.finish(record)
        for client in self.clients:
            if self.rng.random() < 0.5:
                self.timed(2.0, client.close)

    # --- helpers

    def timed(self, limit_s, action):
        began = time.monotonic()
        try:
            return action()
        finally:
            took = time.monotonic() - began
            if took > limit_s + SLACK_S:
                raise Wrong(f"took {took:.2f} s, its limit is {limit_s:.3f} s; {self.log[-3:]}")

    def client(self):
        if not self.clients or self.rng.random() < 0.15:
            self.clients.append(Client(self.address, timeout_s=TIMEOUT_S))
        return self.rng.choice(self.clients)

    def check_rows(self, indexes, vectors, spec, what):
        expected = self.reference[spec][list(indexes)]
        check(vectors.dtype == expected.dtype and np.array_equal(vectors, expected),
              what, "a row is not its text's vector; spec", spec)

    def question(self):
        spec = self.rng.randrange(len(SPECS))
        count = self.rng.choice((1, 1, 2, 5, 40, 300))
        return spec, self.rng.choices(range(len(self.texts)), k=count)

    def ask(self, client, spec, indexes, timeout_s=None):
        given = [self.texts[i] for i in indexes]
        if self.rng.random() < 0.3:
            given = (text for text in given)
        vectors = client.embed(given, timeout_s=timeout_s, **SPECS[spec])
        self.check_rows(indexes, vectors, spec, "embed:")

    # --- steps: calls

    def call(self):
        spec, indexes = self.question()
        client = self.client()
        self.timed(TIMEOUT_S, lambda: self.ask(client, spec, indexes))

    def interrupted_calls(self):
        client = self.client()
        for _ in range(self.rng.randint(1, 6)):
            spec, indexes = self.question()
            with contextlib.suppress(KeyboardInterrupt, Interrupt, Alarm):
                with Interruption(self.rng):
                    self.timed(TIMEOUT_S, lambda: self.ask(client, spec, indexes))
        self.call()

    def hurried_call(self):
        spec, indexes = self.question()
        client = self.client()
        timeout_s = self.rng.choice((0, 1e-6, 0.001, 0.005, 0.05, np.float32(0.01)))
        try:
            self.timed(timeout_s, lambda: self.ask(client, spec, indexes, timeout_s))
        except TesseraError as error:
            check(error.code in (ErrorCode.DEADLINE_EXCEEDED, ErrorCode.UNAVAILABLE), error)

    def look(self):
        client = self.client()
        check(self.timed(TIMEOUT_S, client.models) == ["demo-model"], "models")
        try:
            self.timed(TIMEOUT_S, lambda: client.status("none"))
            check(False, "a job that nobody opened is known")
        except TesseraError as error:
            check(error.code == ErrorCode.NOT_FOUND, error)

    def threads(self):
        client = self.client()
        questions = [self.question() for _ in range(4)]
        failures = []

        def work(spec, indexes):
            try:
                given = [self.texts[i] for i in indexes]
                vectors = client.embed(given, **SPECS[spec])
                self.check_rows(indexes, vectors, spec, "in a thread:")
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=question) for question in questions]
        for thread in threads:
            thread.start()
        with contextlib.suppress(KeyboardInterrupt, Interrupt, Alarm):
            with Interruption(self.rng):
                self.ask(client, 0, [1, 2, 3])
        for thread in threads:
            thread.join(TIMEOUT_S + SLACK_S)
            check(not thread.is_alive(), "a thread hangs")
        check(not failures, "in a thread:", failures)

    # --- steps: jobs

    def begin(self):
        record = Record(self.rng, len(self.texts))
        self.records.append(record)
        self.submit(record, self.client())

    def input_of(self, record):
        texts = [self.texts[i] for i in record.items]
        kind = self.rng.randrange(5)
        return (texts, tuple(texts), (text for text in texts), iter(texts),
                map(str, texts))[kind]

    def submit(self, record, client):
        """A new Job of the record's key, whoever had it before."""
        before, record.job = record.job, None
        options = {"key": record.key, "chunk_items": record.chunk_items, **SPECS[record.spec]}
        try:
            record.job = self.timed(TIMEOUT_S,
                                    lambda: client.submit(self.input_of(record), **options))
        except JobConflict as error:
            self.lost_to_a_rival(record, error)
            self.submit(record, client)
        if before is not None and not record.done and self.rng.random() < 0.5:
            self.check_taken(before)

    def check_taken(self, job):
        """An older Job of the key says so, or has nothing more to say."""
        if job.failure is not None and job.failure.code == ErrorCode.CANCELLED:
            return
        try:
            for _ in job.results(timeout_s=TIMEOUT_S):
                pass
            check(not job.failure, job.failure)
        except JobConflict:
            pass
        except TesseraError as error:
            check("items was ended by" in error.message or error.code == ErrorCode.CANCELLED,
                  "an older Job:", error)

    def take(self, record, result):
        indexes = range(result.first_index, result.first_index + len(result.vectors))
        check(indexes.stop <= len(record.items), "a row beyond the items", indexes)
        check(not result.errors, result.errors)
        self.check_rows([record.items[i] for i in indexes], result.vectors, record.spec, "job:")
        record.rows.update(indexes)

    def loop(self, record, most=None):
        """Iterates; True when the job is over."""
        if record.job is None:  # Submitting it was interrupted.
            self.submit(record, self.client())
        try:
            return self._loop(record, most)
        except JobConflict as error:
            self.lost_to_a_rival(record, error)
            self.submit(record, self.client())
            return self.loop(record, most)
        except TesseraError as error:
            check("items was ended by" in error.message, error)  # By an interrupt before.
            self.submit(record, self.client())
            return self.loop(record, most)

    def lost_to_a_rival(self, record, error):
        """A process that was killed, or a submit that was given up, may still be heard later."""
        check(record.rivals > 0 and "another client" in error.message, error)
        record.rivals -= 1

    def _loop(self, record, most):
        for count, result in enumerate(record.job.results(timeout_s=TIMEOUT_S), 1):
            self.take(record, result)
            if count == most:
                if self.rng.random() < 0.3:
                    record.job.acknowledge(result.chunk)
                return False
        return True

    def open_record(self):
        unfinished = [r for r in self.records if not r.done and r.job is not None]
        if not unfinished:
            self.begin()
            unfinished = self.records[-1:]
        return self.rng.choice(unfinished)

    def leave_early(self):
        self.loop(self.open_record(), self.rng.randint(1, 4))

    def fail_in_body(self):
        record = self.open_record()
        self.submit(record, self.client())
        kept = []
        try:
            for result in record.job.results(timeout_s=TIMEOUT_S):
                if self.rng.random() < 0.4:
                    raise Alarm("in the body")
                self.take(record, result)
        except Alarm as error:
            kept.append(error)  # As a notebook keeps the last traceback.
        except JobConflict as error:
            self.lost_to_a_rival(record, error)
            self.submit(record, self.client())
        except TesseraError as error:
            check("items was ended by" in error.message, error)  # By an interrupt before.
        self.loop(record, 1)

    def interrupted_loops(self):
        record = self.open_record()
        for _ in range(self.rng.randint(1, 8)):
            try:
                with Interruption(self.rng):
                    over = self.loop(record, self.rng.choice((None, 1, 3)))
            except (KeyboardInterrupt, Interrupt, Alarm):
                record.rivals += 1  # Should it have been in a submit.
                continue
            if over:
                self.over(record)
                return

    def interrupted_submit(self):
        record = Record(self.rng, len(self.texts))
        self.records.append(record)
        for _ in range(self.rng.randint(1, 4)):
            with contextlib.suppress(KeyboardInterrupt, Interrupt, Alarm):
                with Interruption(self.rng):
                    self.submit(record, self.client())
            record.rivals += 1
        if record.job is None:
            self.submit(record, self.client())

    def resume(self):
        record = self.open_record()
        self.submit(record, self.client())
        self.loop(record, self.rng.randint(1, 3))

    def finish(self, record):
        if record.done:
            return
        for attempt in range(3):
            if record.job is None or attempt:
                self.submit(record, Client(self.address, timeout_s=TIMEOUT_S))
            try:
                check(self.loop(record), "a loop that ended early")
                self.over(record)
                return
            except (JobConflict, TesseraError) as error:
                # Taken up by a child, left with its client, or ended by an interrupted input.
                check(error.code in (ErrorCode.CONFLICT, ErrorCode.CANCELLED)
                      or "items was ended by" in error.message, error)
        check(False, "a job cannot be finished")

    def over(self, record):
        record.done = True
        missing = set(range(len(record.items))) - record.rows
        check(not missing, "done with rows missing:", sorted(missing)[:5], "of", len(record.items))

    def other_items(self):
        """Under a key that was used: not one row may come for a text that is not the key's."""
        record = self.open_record()
        changed = list(record.items)
        if not changed:
            return
        at = self.rng.randrange(len(changed))
        changed[at] = (changed[at] + 1) % len(self.texts)
        try:
            for result in record.job.results(timeout_s=TIMEOUT_S):
                self.take(record, result)
                if at in record.rows:
                    break
        except JobConflict as error:
            self.lost_to_a_rival(record, error)
            record.job = None
            return
        except TesseraError as error:
            check("items was ended by" in error.message, error)  # By an interrupt before.
            return
        try:
            texts = [self.texts[i] for i in changed]
            job = self.client().submit(texts, key=record.key, chunk_items=record.chunk_items,
                                       **SPECS[record.spec])
            for result in job.results(timeout_s=TIMEOUT_S):
                rows = range(result.first_index, result.first_index + len(result.vectors))
                check(at not in rows, "a row of other items")
                self.take(record, result)
            check(False, "other items under a used key are taken")
        except JobConflict as error:
            if "other items" not in error.message:
                self.lost_to_a_rival(record, error)
        record.job = None
        self.submit(record, self.client())

    # --- steps: drops and processes

    def drop_client(self):
        client = self.client()
        self.clients.remove(client)
        for record in self.records:
            if record.job is not None and record.job._client is client and not record.done:
                record.job = None
        del client
        if self.rng.random() < 0.5:
            self.timed(1.0, gc.collect)

    def drop_job(self):
        record = self.open_record()
        if self.rng.random() < 0.5:
            record.job.close()
            try:
                self._loop(record, None)
                check(record.job._state.over, "a closed job goes on")
            except JobConflict as error:
                self.lost_to_a_rival(record, error)
            except TesseraError as error:
                check(error.code == ErrorCode.CANCELLED or "items was ended by" in error.message,
                      error)
        record.job = None
        self.submit(record, self.client())

    def close_client(self):
        client = self.client()
        self.clients.remove(client)
        for record in self.records:
            if record.job is not None and record.job._client is client and not record.done:
                record.job = None
        self.timed(1.6, client.close)
        try:
            client.embed(["x"])
            check(False, "a closed client answers")
        except TesseraError as error:
            check(error.code == ErrorCode.CANCELLED, error)

    def copied_client(self):
        client = pickle.loads(pickle.dumps(self.client()))
        spec, indexes = self.question()
        self.timed(TIMEOUT_S, lambda: self.ask(client, spec, indexes))
        self.clients.append(client)

    def fork(self):
        """A child that uses its parent's clients, and may take up a job of its parent's."""
        record = self.open_record() if self.rng.random() < 0.6 else None
        client = self.client()
        if self.rng.random() < 0.3:
            spec, indexes = self.question()
            with contextlib.suppress(KeyboardInterrupt, Interrupt, Alarm):
                with Interruption(self.rng):
                    self.ask(client, spec, indexes)
        read_end, write_end = os.pipe()
        kill = self.rng.random() < 0.3
        faulthandler.cancel_dump_traceback_later()  # Its thread would be missed in the child.
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            self._child(record, client, write_end)
        faulthandler.dump_traceback_later(SEQUENCE_LIMIT_S, exit=True)
        os.close(write_end)
        if kill:
            time.sleep(10 ** self.rng.uniform(-3, -0.7))
            os.kill(pid, signal.SIGKILL)
        said = self._hear(read_end, pid)
        _, status = os.waitpid(pid, 0)
        rows = [line for line in said.split("\n") if line.startswith("row ")]
        if record is not None:
            # Of one that was killed, the last line may be cut off; its rows were not acknowledged.
            complete = rows if said.endswith("\n") else rows[:-1]
            for line in complete:
                first, end = map(int, line.split()[1:])
                record.rows.update(range(first, end))
            record.job = None if self.rng.random() < 0.5 else record.job
            record.rivals += 1
        if not (kill and os.WIFSIGNALED(status)):
            check(status == 0, "the child failed:", said[-3000:])
        self.timed(TIMEOUT_S, lambda: self.ask(client, 0, [3, 4, 5]))

    def _hear(self, read_end, pid):
        said = b""
        deadline = time.monotonic() + 3 * TIMEOUT_S
        while True:
            ready, _, _ = select.select([read_end], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise Wrong("a forked child hangs: " + said.decode(errors="replace")[-500:])
            data = os.read(read_end, 65536)
            if not data:
                os.close(read_end)
                return said.decode(errors="replace")
            said += data

    def _child(self, record, client, write_end):
        def say(text):
            os.write(write_end, text.encode())

        code = 1
        try:
            faulthandler.dump_traceback_later(2 * TIMEOUT_S, exit=True)
            self.timed(TIMEOUT_S, lambda: self.ask(client, 1, [1, 2]))
            if record is not None:
                self._child_job(record, client, say)
            code = 0
        except BaseException:
            say(traceback.format_exc())
        finally:
            how = self.rng.randrange(3)
            if how == 0:
                client.close()
            if how < 2:
                os._exit(code)
        # The third way runs the interpreter's exit, with all that was inherited.
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(20)
        sys.exit(code)

    def _child_job(self, record, client, say):
        try:
            next(iter(record.job))
            check(record.job._state.over, "a parent's Job works in the child")
        except StopIteration:
            pass
        except TesseraError as error:
            check(error.code == ErrorCode.CONFLICT, error)
        job = client.submit(self.input_of(record), key=record.key, chunk_items=record.chunk_items,
                            **SPECS[record.spec])
        most = self.rng.choice((1, 3, 1000))
        for count, result in enumerate(job.results(timeout_s=TIMEOUT_S), 1):
            self.take(record, result)
            say(f"row {result.first_index} {result.first_index + len(result.vectors)}\n")
            if count == most:
                break


STEPS = [(Sequence.call, 2), (Sequence.interrupted_calls, 3), (Sequence.hurried_call, 2),
         (Sequence.look, 1), (Sequence.threads, 1), (Sequence.begin, 2), (Sequence.leave_early, 3),
         (Sequence.fail_in_body, 2), (Sequence.interrupted_loops, 5),
         (Sequence.interrupted_submit, 2), (Sequence.resume, 3), (Sequence.drop_client, 2),
         (Sequence.drop_job, 1), (Sequence.close_client, 1), (Sequence.copied_client, 1),
         (Sequence.fork, 3), (Sequence.other_items, 1)]


# --- running them


def reference_of(address, texts):
    """By spec: [texts, width], from the coordinator and not through the client under test."""
    peer = wire.Peer(address)
    peer.hello()
    tables = []
    for spec in SPECS:
        said = {("vector_type" if name == "float16" else name): int(value)
                if name == "float16" else value for name, value in spec.items()}
        reply = [peer.embed(texts[at:at + 100], timeout_s=120, **said)
                 for at in range(0, len(texts), 100)]
        dtype = "<f2" if spec.get("float16") else "<f4"
        tables.append(np.array([row for part in reply for row in wire.vectors(part)]).astype(dtype))
    peer.close()
    return tables


def run_sequence(address, reference, texts, seed, write_end):
    """In a process of its own, which this ends."""
    # One that hangs says where, and ends.
    faulthandler.dump_traceback_later(SEQUENCE_LIMIT_S, exit=True)
    sequence = Sequence(address, reference, texts, seed)
    own = os.getpid()
    began = time.monotonic()
    try:
        sequence.run()
        failure = None
    except SystemExit:
        raise
    except BaseException:
        failure = traceback.format_exc()
    if os.getpid() != own:
        os._exit(3)
    said = {"seed": seed, "failure": failure, "steps": sequence.log, "counts": sequence.counts,
            "took_s": time.monotonic() - began, "longest": sequence.longest}
    with os.fdopen(write_end, "w") as out:
        out.write(json.dumps(said))
    # Ends as programs do, with clients that nobody closed.
    sys.exit(1 if failure else 0)


def start(address, reference, texts, seed):
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        run_sequence(address, reference, texts, seed, write_end)
    os.close(write_end)
    return {"seed": seed, "pid": pid, "pipe": read_end, "began": time.monotonic()}


def collect(run, results):
    with os.fdopen(run["pipe"]) as pipe:
        text = pipe.read()
    result = json.loads(text) if text else {"seed": run["seed"], "failure": "ended without a word"}
    said_at = time.monotonic()
    _, status = os.waitpid(run["pid"], 0)
    exit_s = time.monotonic() - said_at
    if status and not result["failure"]:
        result["failure"] = f"its exit failed: status {status}"
    if exit_s > 1.5 + SLACK_S and not result["failure"]:
        result["failure"] = f"its exit took {exit_s:.2f} s"
    results.append(result)
    if result["failure"]:
        print(f"seed {result['seed']}: {result.get('steps')}\n{result['failure']}", flush=True)


def run_all(address, sequences, seed, jobs):
    texts = cluster.sample_texts(TEXTS, seed=11)
    reference = reference_of(address, texts)
    results, running = [], []
    for number in range(sequences):
        running.append(start(address, reference, texts, seed + number))
        if len(running) >= jobs:
            collect(running.pop(0), results)
        if number % 50 == 49:
            print(f"{number + 1} sequences, {sum(bool(r['failure']) for r in results)} failed",
                  flush=True)
    for run in running:
        collect(run, results)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--sequences", type=int, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--jobs", type=int, default=2, help="sequences at a time")
    parser.add_argument("--address", help="of a coordinator with the demo model; else one is made")
    options = parser.parse_args()
    if options.address is None:
        # In a process of its own: those that the sequences fork must not end it with themselves.
        with cluster.running_cluster(1, "--window-chunks", "6") as running:
            return subprocess.run([sys.executable, __file__, *sys.argv[1:], "--address",
                                   running.addresses["clients"], "--seed", str(options.seed)],
                                  check=False).returncode
    print(f"seeds {options.seed} to {options.seed + options.sequences - 1}", flush=True)
    began = time.monotonic()
    results = run_all(options.address, options.sequences, options.seed, options.jobs)
    failed = [result for result in results if result["failure"]]
    steps = sum((collections.Counter(r.get("counts", {})) for r in results), collections.Counter())
    slowest = max(results, key=lambda result: result.get("longest", [0]))
    step_s, step = slowest.get("longest", (0.0, "none"))
    print(f"{len(results)} sequences, {sum(steps.values())} steps in "
          f"{time.monotonic() - began:.0f} s; the longest step {step_s:.2f} s ({step} of seed "
          f"{slowest['seed']}); {len(failed)} failed: {[result['seed'] for result in failed]}")
    print(", ".join(f"{count} {name}" for name, count in sorted(steps.items())))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
