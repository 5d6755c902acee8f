"""What becomes of a cluster whose Redis is emptied, or replaced by an older copy of itself, while the
coordinator runs and while it does not: all end in one clear state, and nothing waits in silence."""

import os
import shutil
import signal
import time

import pytest

from fakes import Coordinator, FakeWorker, JobClient
from redis_servers import RedisServer
from wire import SLOWDOWN, Peer


class Cluster:
    """A Redis of its own, a coordinator and a fake worker that follows terms as real ones do."""

    def __init__(self, log, appendonly="yes"):
        self.redis = RedisServer(appendonly=appendonly)
        self.log = log
        self.coordinator = Coordinator("--redis", f"redis://127.0.0.1:{self.redis.port}", log=log)
        self.worker = FakeWorker(self.coordinator.workers)
        assert self.worker.welcomed.wait(20 * SLOWDOWN)

    def run_job(self, key, chunks=3, **options):
        job = JobClient(self.coordinator.clients, key, [[[n, 7, len(key)]] for n in range(chunks)])
        job.run(**options)
        return job

    def status(self):
        client = Peer(self.coordinator.clients)
        client.hello()
        client.send("StatusRequest", request_id=5)
        status = client.wait_for("StatusReply")
        client.close()
        return status

    def wait_for_term_above(self, term):
        deadline = time.monotonic() + 60 * SLOWDOWN
        while True:
            assert self.coordinator.process.poll() is None and time.monotonic() < deadline
            status = self.status()
            if status["epoch"] > term:
                return status
            time.sleep(0.1)

    def expect_alive(self):
        """New jobs and questions are answered, and the worker has followed."""
        self.run_job("afterwards")
        client = Peer(self.coordinator.clients)
        client.hello()
        assert client.embed([[9, 9, time.time_ns() % 10_000]])["type"] == "EmbedReply"
        client.close()

    def stop(self):
        self.worker.stop()
        code = self.coordinator.stop()
        self.redis.stop()
        return code


@pytest.fixture
def cluster(tmp_path):
    cluster = Cluster(tmp_path / "log")
    yield cluster
    cluster.stop()  # Also where the test, or the coordinator itself, has ended it.


def test_an_emptied_redis_begins_a_new_ledger_while_the_coordinator_runs(cluster):
    before = cluster.status()
    assert before["ledger_warning"] == "" and before["ledger_id"]
    cluster.run_job("done")
    job = JobClient(cluster.coordinator.clients, "lost", [[[1, 2]], [[3, 4]]])
    job.connect()
    cluster.redis.command("FLUSHALL")
    after = cluster.wait_for_term_above(before["epoch"])  # Though nobody asks for anything.
    assert after["ledger_id"] != before["ledger_id"]
    assert "emptied" in after["ledger_warning"] and "lost" in after["ledger_warning"]
    assert after["jobs"] == []
    assert after["ledger_warning"] in cluster.log.read_text()
    job.submit(0)
    assert job.peer.wait_for("ChunkAck")["code"] == 3, "the job is not known any more, at once"
    cluster.expect_alive()
    assert cluster.stop() == 0


def test_an_emptied_redis_begins_a_new_ledger_under_a_job(cluster):
    term = cluster.status()["epoch"]
    job = cluster.run_job("long", chunks=200, stop_when=lambda j: len(j.results) >= 20)
    cluster.redis.command("FLUSHALL")
    cluster.wait_for_term_above(term)
    job = JobClient(cluster.coordinator.clients, "long", [[[n, 7, 4]] for n in range(200)])
    job.run()
    assert len(job.results) == 200
    cluster.expect_alive()
    assert cluster.stop() == 0


def test_a_redis_without_a_file_that_is_started_again(tmp_path):
    cluster = Cluster(tmp_path / "log", appendonly="no")
    term = cluster.status()["epoch"]
    cluster.run_job("done")
    cluster.redis.kill()
    deadline = time.monotonic() + 60 * SLOWDOWN
    while cluster.status()["ledger_away_s"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    cluster.redis.start()
    assert "emptied" in cluster.wait_for_term_above(term)["ledger_warning"]
    cluster.expect_alive()
    assert cluster.stop() == 0


def test_an_older_copy_under_a_coordinator_that_runs(cluster):
    before = cluster.status()
    cluster.run_job("kept")
    copy_of_data(cluster.redis)
    cluster.run_job("lost")
    put_copy_back(cluster.redis)
    after = cluster.wait_for_term_above(before["epoch"])
    assert after["ledger_id"] == before["ledger_id"]
    assert "older copy" in after["ledger_warning"] and "1 jobs" in after["ledger_warning"]
    assert [job["job_key"] for job in after["jobs"]] == ["kept"]
    cluster.expect_alive()
    assert cluster.stop() == 0


def test_an_older_copy_while_the_coordinator_is_down(cluster):
    first = cluster.status()
    copy_of_data(cluster.redis)
    for _ in range(2):  # Terms that the copy does not know, and the worker does.
        cluster.coordinator.kill()
        cluster.coordinator.start()
        second = cluster.wait_for_term_above(first["epoch"])
        wait_until_worker_is_registered(cluster)
    assert second["ledger_warning"] == ""
    cluster.coordinator.kill()
    put_copy_back(cluster.redis)
    cluster.coordinator.start()
    wait_until_worker_is_registered(cluster)
    after = cluster.status()
    assert after["ledger_id"] == first["ledger_id"] and after["epoch"] > second["epoch"]
    assert "older copy" in after["ledger_warning"] and "worker fake knows term" in \
        after["ledger_warning"]
    cluster.expect_alive()
    assert cluster.stop() == 0


def test_an_emptied_redis_while_the_coordinator_is_down(cluster):
    first = cluster.status()
    cluster.coordinator.kill()
    cluster.redis.command("FLUSHALL")
    cluster.coordinator.start()
    wait_until_worker_is_registered(cluster)
    after = cluster.status()
    assert after["ledger_id"] != first["ledger_id"]
    assert "another ledger" in after["ledger_warning"]
    assert cluster.worker.followed[-1] == (after["ledger_id"], after["epoch"])
    cluster.expect_alive()
    assert cluster.stop() == 0


def test_a_worker_of_an_earlier_version_follows_an_emptied_redis(cluster):
    cluster.worker.stop()
    cluster.worker = FakeWorker(cluster.coordinator.workers, knows_ledgers=False)
    assert cluster.worker.welcomed.wait(20 * SLOWDOWN)
    for _ in range(3):
        cluster.coordinator.kill()
        cluster.redis.command("FLUSHALL")
        cluster.coordinator.start()
    cluster.expect_alive()
    assert cluster.stop() == 0


def test_a_coordinator_that_was_away_ends_when_another_leads(cluster, tmp_path):
    os.kill(cluster.coordinator.process.pid, signal.SIGSTOP)
    other = Coordinator("--redis", f"redis://127.0.0.1:{cluster.redis.port}")
    os.kill(cluster.coordinator.process.pid, signal.SIGCONT)
    assert cluster.coordinator.process.wait(60 * SLOWDOWN) == 1  # Nobody had to ask it anything.
    assert "another coordinator has taken over" in cluster.log.read_text()
    assert other.stop() == 0


def test_a_coordinator_ends_when_another_has_founded_a_ledger_there(cluster):
    os.kill(cluster.coordinator.process.pid, signal.SIGSTOP)
    cluster.redis.command("FLUSHALL")
    other = Coordinator("--redis", f"redis://127.0.0.1:{cluster.redis.port}")
    os.kill(cluster.coordinator.process.pid, signal.SIGCONT)
    assert cluster.coordinator.process.wait(60 * SLOWDOWN) == 1
    assert "another coordinator has taken over" in cluster.log.read_text()
    assert other.stop() == 0


def wait_until_worker_is_registered(cluster):
    deadline = time.monotonic() + 60 * SLOWDOWN
    while not cluster.status()["workers"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def copy_of_data(redis):
    shutil.copytree(os.path.join(redis.folder, "appendonlydir"), redis.folder + "/copy")


def put_copy_back(redis):
    redis.kill()
    shutil.rmtree(os.path.join(redis.folder, "appendonlydir"))
    shutil.copytree(redis.folder + "/copy", os.path.join(redis.folder, "appendonlydir"))
    redis.start()
