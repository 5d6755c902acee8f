"""`tessera up`: one command, a whole cluster, and nothing left behind."""

import json
import os
import signal
import subprocess
import urllib.request

from cluster import BIN, MODEL, PATIENCE_S, Cluster, wait_for


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"


def start_up(folder, *args):
    ports = folder / "cluster.json"
    ports.unlink(missing_ok=True)
    process = subprocess.Popen(
        [BIN / "tessera", "up", "--model", MODEL, "--free-ports", "--threads", "1", "--data-dir",
         folder / "data", "--port-file", ports, *args],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for(lambda: ports.exists() or process.poll() is not None, "tessera up")
    assert process.poll() is None, process.stderr.read().decode()
    return process, json.loads(ports.read_text())


def embed(cluster, text):
    done = subprocess.run([BIN / "tessera", "embed", "--coordinator", cluster["clients"],
                           "--timeout-s", "120", text], capture_output=True, timeout=PATIENCE_S)
    return done.returncode == 0


def embed_over_http(cluster, text):
    body = json.dumps({"model": "demo-model", "input": text}).encode()
    try:
        with urllib.request.urlopen(cluster["http"] + "/v1/embeddings", body) as answer:
            return answer.status
    except OSError:
        return 0


def test_up_serves_restarts_a_worker_and_stops_everything(tmp_path):
    process, cluster = start_up(tmp_path, "--workers", "2")
    pids = {entry["name"]: entry["pid"] for entry in cluster["processes"]}
    assert set(pids) == {"coordinator", "gateway", "worker-0", "worker-1"}
    assert embed(cluster, "before")
    assert embed_over_http(cluster, "before") == 200
    os.kill(pids["worker-0"], signal.SIGKILL)
    os.kill(pids["gateway"], signal.SIGKILL)

    def two_workers():
        done = subprocess.run([BIN / "tessera", "status", "--coordinator", cluster["clients"],
                               "--json"], capture_output=True, timeout=PATIENCE_S)
        return done.returncode == 0 and len(json.loads(done.stdout)["workers"]) == 2

    log = tmp_path / "data/logs/worker-0.log"
    wait_for(lambda: log.read_text().count("registered") >= 2 and two_workers(), "the new worker")
    assert embed(cluster, "after")
    wait_for(lambda: embed_over_http(cluster, "after") == 200, "the gateway on its old port")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 0
    wait_for(lambda: not any(alive(pid) for pid in pids.values()), "the children's end")

    # Again in the same folder: the ledger and the cache are taken up.
    process, cluster = start_up(tmp_path, "--no-http")
    assert embed(cluster, "before") and "http" not in cluster
    process.terminate()
    assert process.wait(PATIENCE_S) == 0


def test_a_second_up_on_a_data_folder_is_refused_at_once_and_harms_nothing(tmp_path):
    process, cluster = start_up(tmp_path)
    ports = tmp_path / "data/coordinator.json"
    before = ports.stat().st_ino, ports.read_text()
    second = ["up", "--model", MODEL, "--free-ports", "--data-dir", tmp_path / "data"]
    lone = ["coordinator", "--model", MODEL, "--listen", "tcp://127.0.0.1:*", "--worker-listen",
            "tcp://127.0.0.1:*", "--data-dir", tmp_path / "data", "--port-file", ports]
    for command, holder in ((second, process.pid), (lone, cluster["processes"][0]["pid"])):
        done = subprocess.run([BIN / "tessera", *command], capture_output=True, timeout=PATIENCE_S)
        assert done.returncode == 1
        assert f"is in use by process {holder} (tessera" in done.stderr.decode(), done.stderr
        assert (ports.stat().st_ino, ports.read_text()) == before
    assert embed(cluster, "still served")
    process.terminate()
    assert process.wait(PATIENCE_S) == 0

    # Beside a coordinator that somebody started by hand.
    with Cluster() as alone:
        done = subprocess.run([BIN / "tessera", "up", "--model", MODEL, "--free-ports", "--data-dir",
                               alone.folder / "data"], capture_output=True, timeout=PATIENCE_S)
        assert done.returncode == 1
        assert f"in use by process {alone.coordinator.pid} (tessera coordinator) since" in \
            done.stderr.decode(), done.stderr


def test_children_end_when_up_is_killed(tmp_path):
    process, cluster = start_up(tmp_path)
    process.kill()
    process.wait()
    pids = [entry["pid"] for entry in cluster["processes"]]
    wait_for(lambda: not any(alive(pid) for pid in pids), "the children's end")


def test_what_cannot_start_is_told_in_one_line(tmp_path):
    for args in (["--device", "tpu"], ["--model", tmp_path]):
        done = subprocess.run([BIN / "tessera", "up", "--model", MODEL, "--free-ports", "--data-dir",
                               tmp_path / "data", *args], capture_output=True, timeout=PATIENCE_S)
        assert done.returncode != 0
        assert b"error:" in done.stderr or done.returncode == 2, done.stderr
