"""/v1/batches from upload to download, and what is left of a batch when processes are killed.

TESSERA_FULL=1 runs also a batch of 200,000 lines, and longer ones under the kills.
"""

import json
import os
import shutil
import signal
import subprocess
import threading
import time

import pytest
from batch_gateway import MODEL, BatchGateway, decoded, line
from cluster import BIN, Cluster, kill_9, sample_texts, wait_for

FULL = os.environ.get("TESSERA_FULL") == "1"
LINES = 40_000 if FULL else 6_000
# Chunks are then done one after the other, so there is a middle to kill in.
SMALL_WINDOW = ("--window-chunks", "3")


@pytest.fixture(scope="module")
def cluster():
    with Cluster(*SMALL_WINDOW) as started:
        started.add_worker(wait=False)
        yield started


@pytest.fixture(scope="module")
def files(cluster):
    path = cluster.folder / "files"
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def gateways(cluster, files):
    return [BatchGateway(cluster, files, f"gateway-{i}") for i in range(2)]


@pytest.fixture(scope="module")
def gateway(gateways):
    return gateways[0]


def by_id(lines):
    found = {one["custom_id"]: one for one in lines}
    assert len(found) == len(lines), "a line was answered twice"
    return found


def check_rows(gateway, batch, texts, every):
    """Each line is answered once, with the bits that the route gives."""
    rows = by_id(gateway.lines(batch["output_file_id"]))
    assert len(rows) == len(texts)
    some = list(range(0, len(texts), every))
    for begin in range(0, len(some), 256):
        part = some[begin:begin + 256]
        direct = gateway.embed({"model": MODEL, "input": [texts[i] for i in part],
                                "encoding_format": "base64"})
        for i, row in zip(part, decoded(direct["data"])):
            body = rows[str(i)]["response"]["body"]
            assert decoded(body["data"]) == [row], i


# --- forms

def test_from_upload_to_download_as_the_route_answers(gateways):
    first, second = gateways
    lines = [line("list", ["edit photos", "send email"], encoding_format="base64"),
             line("narrow", "edit photos", dimensions=64),
             line("query", "edit photos", input_type="query"),
             line("int8", ["a", "b", "c"], output_dtype="int8")]
    batch = first.create(first.upload(lines), metadata={"of": "a test"})
    assert batch["status"] == "validating" and batch["id"].startswith("batch_")
    assert second.batch(batch["id"])["metadata"] == {"of": "a test"}
    batch = second.wait(batch["id"])
    assert batch["status"] == "completed" and batch["error_file_id"] is None, batch
    assert batch["request_counts"] == {"total": 4, "completed": 4, "failed": 0}
    assert batch["model"] == MODEL and batch["usage"]["total_tokens"] > 20
    assert batch["created_at"] <= batch["in_progress_at"] <= batch["finalizing_at"] \
        <= batch["completed_at"] and batch["expires_at"] == batch["created_at"] + 86400
    rows = by_id(second.lines(batch["output_file_id"]))
    for one in lines:
        row = rows[one["custom_id"]]
        assert row["id"].startswith("batch_req_") and row["error"] is None
        assert row["response"]["status_code"] == 200 and row["response"]["request_id"]
        direct = first.embed(one["body"])
        body = row["response"]["body"]
        for form in (direct, body):
            del form["usage"]["prompt_tokens_details"]  # What was cached differs.
        assert body == direct, one["custom_id"]
    info = first.json("GET", f"/v1/files/{batch['output_file_id']}")
    assert info["purpose"] == "batch_output"
    assert not (first.files / "work" / batch["id"]).exists()


def test_wrong_lines_are_told_as_the_route_tells_them(gateway):
    lines = [line("good", "a"), line("empty", ""), line("long", "word " * 9000),
             line("field", "a", colour="red"), line("width", "a", dimensions=9999),
             line("ids", [[1, 2]]), line("two", ["a", ""])]
    batch = gateway.wait(gateway.create(gateway.upload(lines))["id"])
    assert batch["request_counts"] == {"total": 7, "completed": 1, "failed": 6}, batch
    assert [row["custom_id"] for row in gateway.lines(batch["output_file_id"])] == ["good"]
    rows = by_id(gateway.lines(batch["error_file_id"]))
    for one in lines[1:]:
        row = rows[one["custom_id"]]
        status, text = gateway.ask("POST", "/v1/embeddings", one["body"])
        assert row["response"]["status_code"] == status == 400 and row["error"] is None
        assert row["response"]["body"] == json.loads(text), one["custom_id"]


def failed(gateway, content):
    batch = gateway.wait(gateway.create(gateway.upload(content))["id"])
    assert batch["status"] == "failed" and batch["failed_at"] and not batch["output_file_id"]
    return [(fault["code"], fault["line"]) for fault in batch["errors"]["data"]]


def test_wrong_inputs_are_refused_as_a_whole(gateway):
    other_url = {**line("u", "a"), "url": "/v1/chat/completions"}
    get = {**line("g", "a"), "method": "GET"}
    no_id = {**line("", "a")}
    twice = [line("t", "a"), line("o", "b"), line("t", "c")]
    assert failed(gateway, [line("a", "a"), other_url, get, no_id]) == [
        ("url_mismatch", 2), ("invalid_method", 3), ("missing_custom_id", 4)]
    assert failed(gateway, twice) == [("duplicate_custom_id", 3)]
    assert failed(gateway, b'{"custom_id":\n\n[]\n') == [("invalid_json_line", 1),
                                                         ("invalid_json_line", 3)]
    assert failed(gateway, [line("a", "a", model="other")]) == [("model_not_found", 1)]
    assert failed(gateway, b"\n \n") == [("empty_batch", None)]
    specs = [line(i, "a", dimensions=32 + i) for i in range(65)]
    assert failed(gateway, specs) == [("too_many_specs", 65)]
    assert len(failed(gateway, b"x\n" * 300)) == 100


def test_wrong_requests(gateway):
    file_id = gateway.upload([line("a", "a")])
    for fields, param in (({"endpoint": "/v1/completions"}, "endpoint"),
                          ({"completion_window": "soon"}, "completion_window"),
                          ({"completion_window": "31d"}, "completion_window"),
                          ({"metadata": {"a": 1}}, "metadata"),
                          ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
                          ({"output_expires_after": {"anchor": "created_at", "seconds": 1}},
                           "output_expires_after"),
                          ({"colour": "red"}, "colour")):
        error = gateway.create(file_id, status=400, **fields)["error"]
        assert error["param"] == param, (fields, error)
    assert gateway.create("file-" + 32 * "0", status=400)["error"]["param"] == "input_file_id"
    missing = "/v1/batches/batch_" + 32 * "0"
    assert gateway.json("GET", missing, status=404)["error"]["code"] == "not_found"
    gateway.json("POST", missing + "/cancel", status=404)
    gateway.json("GET", "/v1/batches?limit=101", status=400)
    gateway.json("GET", "/v1/batches?after=batch_none", status=400)


def test_pages_newest_first(gateways):
    file_id = gateways[0].upload([line("a", "a")])
    made = [gateways[i % 2].create(file_id)["id"] for i in range(5)]
    seen, after = [], ""
    while True:
        page = gateways[1].json("GET", f"/v1/batches?limit=2{after}")
        assert page["object"] == "list" and len(page["data"]) <= 2
        assert page["first_id"] == page["data"][0]["id"]
        assert page["last_id"] == page["data"][-1]["id"]
        seen += [batch["id"] for batch in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert seen[:5] == made[::-1] and len(set(seen)) == len(seen)
    for batch_id in made:
        assert gateways[0].wait(batch_id)["status"] == "completed"


def test_a_record_without_its_input_file_fails_in_a_sentence(cluster, files, gateways):
    idle = BatchGateway(cluster, files, "gateway-idle", args=("--batch-runners", 0))
    file_id = idle.upload([line("a", "a")])
    for busy in gateways:
        busy.process.send_signal(signal.SIGSTOP)
    batch = idle.create(file_id)
    (path, ) = files.glob(f"files/*/{file_id}.json")
    path.unlink()
    for busy in gateways:
        busy.process.send_signal(signal.SIGCONT)
    batch = idle.wait(batch["id"])
    assert batch["status"] == "failed"
    assert batch["errors"]["data"][0]["code"] == "input_file_not_found"
    idle.process.terminate()


def test_a_work_folder_that_was_left_is_removed(cluster, files, gateway):
    batch_id = gateway.create(gateway.upload([line("a", "a")]))["id"]
    gateway.wait(batch_id)
    left, unknown = (files / "work" / name for name in (batch_id, "batch_" + 32 * "0"))
    for folder in (left, unknown):
        folder.mkdir(exist_ok=True)
    other = BatchGateway(cluster, files, "gateway-clean")
    wait_for(lambda: not left.exists(), "the folder to go")
    assert unknown.exists(), "of no batch that the ledger knows"
    unknown.rmdir()
    other.process.terminate()


def test_batches_are_their_tenants_own(cluster, files, tmp_path):
    keys = {}
    with open(tmp_path / "keys", "w", encoding="utf-8") as file:
        for name in ("one", "two"):
            made = subprocess.run([BIN / "tessera-gateway", "--new-key", name], text=True,
                                  capture_output=True, check=True)
            keys[name] = made.stderr.split("\n")[1].strip()
            file.write(made.stdout.strip() + f" tenant={name} tokens-per-minute=1000000\n")
    gateway = BatchGateway(cluster, files, "gateway-keys", args=("--keys", tmp_path / "keys"))
    one, two = keys["one"], keys["two"]
    file_id = gateway.upload([line("a", "a")], key=one)
    batch_id = gateway.create(file_id, key=one)["id"]
    assert gateway.create(file_id, key=two, status=400)["error"]["param"] == "input_file_id"
    gateway.json("GET", f"/v1/batches/{batch_id}", key=two, status=404)
    gateway.json("POST", f"/v1/batches/{batch_id}/cancel", key=two, status=404)
    gateway.json("GET", f"/v1/batches?after={batch_id}", key=two, status=400)
    gateway.json("GET", "/v1/batches", status=401)
    assert gateway.json("GET", "/v1/batches", key=two)["data"] == []
    assert [b["id"] for b in gateway.json("GET", "/v1/batches", key=one)["data"]] == [batch_id]
    batch = gateway.wait(batch_id, key=one)
    assert batch["status"] == "completed"
    assert len(gateway.lines(batch["output_file_id"], key=one)) == 1
    gateway.json("GET", f"/v1/files/{batch['output_file_id']}", key=two, status=404)
    gateway.process.terminate()


# --- cancel and expiry

def many(count, seed, text="several words of a text"):
    return [line(i, f"{text} {seed} {i}", encoding_format="base64") for i in range(count)]


def test_cancel_keeps_what_is_done(gateways):
    first, second = gateways
    batch_id = first.create(first.upload(many(20_000, "cancel")))["id"]
    first.wait_counts(batch_id, 1)
    assert second.json("POST", f"/v1/batches/{batch_id}/cancel")["status"] == "cancelling"
    assert first.json("POST", f"/v1/batches/{batch_id}/cancel")["status"] in ("cancelling",
                                                                           "cancelled")
    batch = first.wait(batch_id)
    counts = batch["request_counts"]
    assert batch["status"] == "cancelled" and batch["cancelled_at"] >= batch["cancelling_at"]
    assert counts["total"] == 20_000 > counts["completed"] > 0
    assert len(by_id(first.lines(batch["output_file_id"]))) == counts["completed"]
    assert first.figure("tessera_jobs", 'state="running"') == 0
    done = first.create(first.upload([line("a", "a")]))["id"]
    first.wait(done)
    first.json("POST", f"/v1/batches/{done}/cancel", status=409)


def test_expiry_tells_each_line_that_was_not_run(cluster, gateway):
    lines = many(20_000, "expiry") + [line("narrow", "of a later pass", dimensions=64)]
    batch = gateway.create(gateway.upload(lines), completion_window="4s")
    wait_for(lambda: gateway.batch(batch["id"])["request_counts"]["completed"] > 0 or
             gateway.batch(batch["id"])["status"] == "expired", "a line, or the end")
    cluster.workers[0].send_signal(signal.SIGSTOP)  # Whatever it has time for, not all of it.
    batch = gateway.wait(batch["id"], status=("expired", ))
    cluster.workers[0].send_signal(signal.SIGCONT)
    counts = batch["request_counts"]
    assert counts["total"] == 20_001 == counts["completed"] + counts["failed"]
    answered = by_id(gateway.lines(batch["output_file_id"]))
    unrun = by_id(gateway.lines(batch["error_file_id"]))
    assert len(answered) == counts["completed"] and len(unrun) == counts["failed"] > 0
    assert not set(answered) & set(unrun) and "narrow" in unrun
    assert unrun["narrow"]["response"] is None
    assert unrun["narrow"]["error"]["code"] == "batch_expired"


# --- kills

def lines_written(gateway):
    """By this gateway since its start; unlike what it works on, a look between two cannot miss it."""
    return gateway.figure("tessera_gateway_job_lines_total", 'outcome="completed"')


def test_a_killed_gateway_is_followed_by_the_other_and_no_line_is_embedded_twice(gateways):
    """Bound: the coordinator lives on, so each line is answered just once."""
    first, second = gateways
    texts = [f"a gateway dies {i}" for i in range(LINES)]
    before = first.batch_items()
    file_id = first.upload([line(i, text, encoding_format="base64")
                            for i, text in enumerate(texts)])
    batch_id = first.create(file_id)["id"]
    for lines in (1, LINES // 3):
        second.wait_counts(batch_id, lines)
        busy = next(g for g in gateways
                    if g.figure("tessera_gateway_jobs", 'status="in_progress"') > 0)
        other = gateways[1 - gateways.index(busy)]
        written = lines_written(other)
        busy.kill()
        wait_for(lambda: lines_written(other) > written, "the other gateway to go on")
        busy.start()
    batch = second.wait(batch_id)
    assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}, batch
    assert first.batch_items() - before == LINES
    check_rows(first, batch, texts, every=101)


def test_a_stalled_gateway_that_wakes_up_spoils_nothing(gateways):
    first, second = gateways
    texts = [f"a gateway stalls {i}" for i in range(LINES)]
    batch_id = first.create(first.upload([line(i, text, encoding_format="base64")
                                          for i, text in enumerate(texts)]))["id"]
    second.wait_counts(batch_id, 1)
    busy = next(g for g in gateways
                if g.figure("tessera_gateway_jobs", 'status="in_progress"') > 0)
    other = gateways[1 - gateways.index(busy)]
    written = lines_written(other)
    busy.process.send_signal(signal.SIGSTOP)
    wait_for(lambda: lines_written(other) > written, "the other gateway to take it over")
    busy.process.send_signal(signal.SIGCONT)
    batch = other.wait(batch_id)
    assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}, batch
    check_rows(first, batch, texts, every=101)


def test_sigterm_leaves_a_batch_at_once_to_the_next(cluster, gateways):
    first, _ = gateways
    batch_id = first.create(first.upload(many(LINES, "drain")))["id"]
    first.wait_counts(batch_id, 1)
    for gateway in gateways:
        gateway.process.terminate()
    for gateway in gateways:
        assert gateway.process.wait(60) == 0
        gateway.start()
    batch = first.wait(batch_id)
    assert batch["request_counts"]["completed"] == LINES, batch


def test_everything_dies_and_the_batch_goes_on(tmp_path):
    """First each process alone, then all of them at once. Bound: from the last restart on, no more
    items are answered than lines were not safe in the work folder when all died."""
    files = tmp_path / "files"
    files.mkdir()
    texts = [f"everything dies {i}" for i in range(LINES)]
    with Cluster(*SMALL_WINDOW) as cluster:
        worker = cluster.add_worker(wait=False)
        gateways = [BatchGateway(cluster, files, f"gateway-{i}") for i in range(2)]
        first, second = gateways
        batch_id = first.create(first.upload([line(i, text, encoding_format="base64")
                                              for i, text in enumerate(texts)]))["id"]
        first.wait_counts(batch_id, 1)
        kill_9(worker)
        worker = cluster.add_worker(wait=False)
        first.wait_counts(batch_id, LINES // 6)
        kill_9(cluster.coordinator)
        cluster.start_coordinator()
        first.wait_counts(batch_id, LINES // 4)
        for process in (first.process, second.process, cluster.coordinator, worker):
            os.kill(process.pid, signal.SIGKILL)
        for process in (first.process, second.process, cluster.coordinator, worker):
            process.wait()
        safe = first.done_on_disk(batch_id)
        assert 0 < safe < LINES, "it was not killed in the middle"
        cluster.start_coordinator()
        cluster.add_worker(wait=False)
        for gateway in gateways:
            gateway.start()
        batch = first.wait(batch_id)
        assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}, batch
        answered = first.batch_items()
        computed = wait_for(lambda: first.total("tessera_worker_sequences_total"), "its report")
        assert answered <= LINES - safe, (answered, safe)
        assert computed <= LINES - safe + first.total("tessera_items_total", 'lane="interactive"')
        print(f"{safe} of {LINES} lines were safe; {answered:.0f} items were answered after the "
              f"restart, {computed:.0f} computed")
        check_rows(first, batch, texts, every=101)


def test_a_lost_ledger_takes_its_batches_and_nothing_else(tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    with Cluster(*SMALL_WINDOW) as cluster:
        cluster.add_worker(wait=False)
        gateway = BatchGateway(cluster, files)
        file_id = gateway.upload(many(LINES, "lost"))
        batch_id = gateway.create(file_id)["id"]
        gateway.wait_counts(batch_id, 1)
        cluster.coordinator.terminate()
        cluster.coordinator.wait()
        shutil.rmtree(cluster.folder / "data")
        cluster.start_coordinator()
        wait_for(lambda: gateway.ask("GET", f"/v1/batches/{batch_id}")[0] == 404, "an empty ledger")
        again = gateway.wait(gateway.create(file_id)["id"])
        assert again["request_counts"]["completed"] == LINES, again
        assert gateway.total("tessera_gateway_jobs") == 0


# --- several at a time, and large ones

def test_gateways_race_and_each_line_is_answered_once(gateways):
    count, each = 8, 300
    before = gateways[0].batch_items()
    file_ids = [gateways[i % 2].upload(many(each, f"race {i}")) for i in range(count)]
    made = []
    threads = [threading.Thread(target=lambda i=i: made.append(
        gateways[i % 2].create(file_ids[i])["id"])) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for batch_id in made:
        batch = gateways[0].wait(batch_id)
        assert batch["request_counts"] == {"total": each, "completed": each, "failed": 0}, batch
        assert len(by_id(gateways[0].lines(batch["output_file_id"]))) == each
    assert gateways[0].batch_items() - before == count * each


@pytest.mark.skipif(not FULL, reason="TESSERA_FULL=1 runs it: minutes")
def test_memory_is_flat_in_a_batch_of_200000_lines(tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    texts = sample_texts(2_000, seed=5) * 100  # Mostly from the cache: it is the gateway that counts.
    with Cluster() as cluster:
        cluster.add_worker(wait=False)
        gateway = BatchGateway(cluster, files)
        file_id = gateway.upload([line(i, text) for i, text in enumerate(texts)])  # As decimals.
        began, memory_mb = time.monotonic(), []
        batch_id = gateway.create(file_id)["id"]
        while gateway.batch(batch_id)["status"] not in ("completed", "failed"):
            memory_mb.append(cluster.memory_mb(gateway.process))
            time.sleep(0.5)
        batch = gateway.wait(batch_id)
        took = time.monotonic() - began
        assert batch["request_counts"]["completed"] == 200_000, batch
        size = gateway.json("GET", f"/v1/files/{batch['output_file_id']}")["bytes"]
        print(f"200000 lines in {took:.0f} s, {size / 1e6:.0f} MB of output, gateway at most "
              f"{max(memory_mb):.0f} MB, {memory_mb[len(memory_mb) // 4]:.0f} MB after a quarter")
        assert max(memory_mb) < 300
