"""/v1/files of the gateway process: uploads of any size and shape, what a crash and a lost client
leave, tenants, quota. No coordinator is needed for files."""

import os
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

from gateway_process import GATEWAY, SLOWDOWN, Gateway

NOWHERE = "tcp://127.0.0.1:9"  # Nobody is there.
LINE = b'{"custom_id":"1","method":"POST","url":"/v1/embeddings","body":{"input":"a"}}\n'


@pytest.fixture(scope="module")
def folder():
    path = tempfile.mkdtemp(prefix="tessera-files-")
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def gateway(folder):
    process = Gateway(NOWHERE, "--files", folder)
    yield process
    assert process.stop() == 0


def part(name, data, filename=None):
    data = data if isinstance(data, bytes) else data.encode()
    file = b'; filename="' + filename + b'"' if filename is not None else b""
    return (b'--cut\r\nContent-Disposition: form-data; name="' + name.encode() + b'"' + file +
            b"\r\n\r\n" + data + b"\r\n")


FORM = {"Content-Type": "multipart/form-data; boundary=cut"}


def upload(gateway, data=LINE, filename=b"in.jsonl", headers=None, **fields):
    fields.setdefault("purpose", "batch")
    body = b"".join(part(name, value) for name, value in fields.items() if value is not None)
    body += part("file", data, filename) + b"--cut--\r\n"
    return gateway.ask("POST", "/v1/files", body, {**FORM, **(headers or {})})


def listed(gateway, query="", headers=None):
    answer = gateway.ask("GET", "/v1/files" + query, headers=headers)
    assert answer.status == 200, answer
    return answer.json()


def files_below(folder, name):
    return [os.path.join(at, file) for at, _, files in os.walk(os.path.join(folder, name))
            for file in files]


def eventually(holds):
    deadline = time.monotonic() + 60 * SLOWDOWN
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def peak_kb(gateway):
    with open(f"/proc/{gateway.process.pid}/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))


def test_a_file_comes_back_byte_for_byte(gateway):
    data = bytes(range(256)) * 999 + b"\r\n--cu\r--cut\n\r\n--cu" + LINE
    before = int(time.time())
    answer = upload(gateway, data, b'a \\"b\\".jsonl')
    assert answer.status == 200, answer
    file = answer.json()
    assert file["object"] == "file" and file["id"].startswith("file-")
    assert (file["filename"], file["purpose"], file["bytes"]) == ('a "b".jsonl', "batch", len(data))
    assert file["status"] == "processed" and before <= file["created_at"] <= time.time()
    assert file["expires_at"] == file["created_at"] + 30 * 86400
    assert gateway.ask("GET", "/v1/files/" + file["id"]).json() == file
    content = gateway.ask("GET", f"/v1/files/{file['id']}/content",
                          headers={"Accept": "application/binary"})
    assert content.status == 200 and content.body == data
    assert content.headers["content-length"] == str(len(data))
    head = gateway.ask("HEAD", f"/v1/files/{file['id']}/content")
    assert head.status == 200 and head.headers["content-length"] == str(len(data))
    gone = gateway.ask("DELETE", "/v1/files/" + file["id"])
    assert gone.json() == {"id": file["id"], "object": "file", "deleted": True}
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/content")):
        answer = gateway.ask(method, f"/v1/files/{file['id']}{path}")
        assert answer.status == 404 and file["id"] in answer.json()["error"]["message"]
        assert answer.json()["error"]["type"] == "invalid_request_error"


def test_fields_come_in_any_order_and_the_body_in_any_pieces(gateway):
    body = (part("file", LINE, b"x.jsonl") + part("expires_after[seconds]", "3600") +
            part("expires_after[anchor]", "created_at") + part("purpose", "batch") + b"--cut--")
    connection = gateway.connect()
    connection.send(b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
                    b"Transfer-Encoding: chunked\r\n"
                    b"Content-Type: multipart/form-data; boundary=\"cut\"\r\n\r\n")
    assert connection.answer().status == 100
    for at in range(0, len(body), 7):
        piece = body[at:at + 7]
        connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
    connection.send(b"0\r\n\r\n")
    file = connection.answer().json()
    assert file["expires_at"] == file["created_at"] + 3600
    again = connection.ask("GET", f"/v1/files/{file['id']}/content")  # The connection goes on.
    assert again.body == LINE
    connection.close()


def wrong_forms():
    file, purpose, end = part("file", LINE, b"x"), part("purpose", "batch"), b"--cut--\r\n"
    anchor = part("expires_after[anchor]", "created_at")
    seconds = part("expires_after[seconds]", "3600")
    return [
        (purpose + end, "file"), (file + end, "purpose"), (file + file + purpose + end, "file"),
        (part("purpose", "fine-tune") + file + end, "purpose"),
        (file + purpose + purpose + end, "purpose"),
        (part("file", LINE) + purpose + end, "file"),
        (part("file", b"", b"x") + purpose + end, "file"),
        (file + purpose + anchor + end, "expires_after[seconds]"),
        (file + purpose + seconds + end, "expires_after[anchor]"),
        (file + purpose + anchor + part("expires_after[seconds]", "3599") + end,
         "expires_after[seconds]"),
        (file + purpose + anchor + part("expires_after[seconds]", "3600.5") + end,
         "expires_after[seconds]"),
        (file + purpose + seconds + part("expires_after[anchor]", "now") + end,
         "expires_after[anchor]"),
        (part("other", "x") + file + purpose + end, "other"),
        (part("purpose", b"b" * 70000) + file + end, "purpose"),
        (file + purpose, None), (file + b"--cut\r\n\r\nbatch\r\n" + end, None), (b"{}", None)]


@pytest.mark.parametrize("body,param", wrong_forms())
def test_wrong_forms(gateway, folder, body, param):
    before = listed(gateway)["data"]
    answer = gateway.ask("POST", "/v1/files", body, FORM)
    assert answer.status == 400, answer
    error = answer.json()["error"]
    assert error["param"] == param and error["message"], error
    assert listed(gateway)["data"] == before
    eventually(lambda: not files_below(folder, "incoming"))


def test_a_client_that_sends_all_before_it_reads_gets_its_refusal(gateway, folder):
    connection = gateway.connect()
    body = part("purpose", "other") + part("file", b"x" * 20_000_000, b"x") + b"--cut--"
    answer = connection.ask("POST", "/v1/files", body, FORM)
    assert answer.status == 400 and answer.json()["error"]["param"] == "purpose", answer
    assert connection.ask("GET", "/v1/files").status == 200  # The connection goes on.
    connection.close()
    assert not files_below(folder, "incoming")


def test_what_is_no_form_is_told(gateway):
    for kind in (None, "application/json", "multipart/form-data", "multipart/mixed; boundary=cut"):
        answer = gateway.ask("POST", "/v1/files", part("file", LINE, b"x") + b"--cut--",
                             {"Content-Type": kind} if kind else {})
        assert answer.status == 400 and "error" in answer.json()


def test_pages(gateway):
    for file in listed(gateway)["data"]:
        assert gateway.ask("DELETE", "/v1/files/" + file["id"]).status == 200
    empty = listed(gateway)
    assert empty == {"object": "list", "data": [], "first_id": None, "last_id": None,
                     "has_more": False}
    made = [upload(gateway, LINE * (i + 1)).json() for i in range(5)]
    for order, expected in (("desc", made[::-1]), ("asc", made)):
        got, query = [], f"?limit=2&order={order}"
        while True:
            page = listed(gateway, query + (f"&after={got[-1]['id']}" if got else ""))
            assert page["first_id"] == page["data"][0]["id"]
            assert page["last_id"] == page["data"][-1]["id"]
            got += page["data"]
            if not page["has_more"]:
                break
        assert got == expected
    assert listed(gateway)["data"] == made[::-1]
    assert listed(gateway, "?purpose=batch_output")["data"] == []
    for query, param in (("?limit=0", "limit"), ("?limit=10001", "limit"), ("?limit=x", "limit"),
                         ("?limit=1x", "limit"), ("?limit=", "limit"), ("?limit=-1", "limit"),
                         ("?order=up", "order"), ("?after=file-none", "after")):
        answer = gateway.ask("GET", "/v1/files" + query)
        assert answer.status == 400 and answer.json()["error"]["param"] == param, answer


@pytest.mark.parametrize("id_", ["file-none", "..", "%2e%2e%2fx", "..%2F..%2Fetc%2Fpasswd",
                                 "file-" + "0" * 32, "a%00b"])
def test_ids_that_are_none(gateway, id_):
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/content")):
        answer = gateway.ask(method, f"/v1/files/{id_}{path}")
        assert answer.status in (400, 404) and "error" in answer.json(), answer


def test_a_large_file_goes_through_little_memory(gateway, folder):
    assert upload(gateway).status == 200
    before = peak_kb(gateway)
    block = (LINE * 2000)[:100_000]
    blocks = 1000
    head, tail = part("purpose", "batch") + part("file", b"", b"big")[:-2], b"\r\n--cut--\r\n"
    began = time.monotonic()
    connection = gateway.connect(timeout_s=600)
    connection.send(b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
                    b"Content-Type: multipart/form-data; boundary=cut\r\n\r\n%s"
                    % (len(head) + len(block) * blocks + len(tail), head))
    for _ in range(blocks):
        connection.send(block)
    connection.send(tail)
    file = connection.answer().json()
    took = time.monotonic() - began
    assert file["bytes"] == len(block) * blocks
    began = time.monotonic()
    connection.send(b"GET /v1/files/%s/content HTTP/1.0\r\nHost: localhost\r\n\r\n"
                    % file["id"].encode())
    with connection.socket.makefile("rb") as answer:
        assert b" 200 " in answer.readline()
        while answer.readline() != b"\r\n":
            pass
        for _ in range(blocks):
            assert answer.read(len(block)) == block
        assert answer.read() == b""
    fetched = time.monotonic() - began
    connection.close()
    grown = peak_kb(gateway) - before
    print(f"100 MB in {took:.2f} s up, {fetched:.2f} s down; peak RSS {grown} kB more")
    assert grown < 64 << 10, grown
    assert gateway.ask("DELETE", "/v1/files/" + file["id"]).status == 200


def begin_upload(gateway, sent=3_000_000):
    """An upload of which the first bytes have reached the disk."""
    connection = gateway.connect()
    connection.send(b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000000\r\n"
                    b"Content-Type: multipart/form-data; boundary=cut\r\n\r\n" +
                    part("purpose", "batch") + part("file", b"x" * sent, b"half")[:-2])
    return connection


def half_written(folder):
    return [f for f in files_below(folder, "incoming") if os.path.getsize(f) > 2_000_000]


def test_a_client_that_goes_leaves_nothing(gateway, folder):
    before = listed(gateway)["data"]
    descriptors = gateway.descriptors()
    connections = [begin_upload(gateway) for _ in range(5)]
    eventually(lambda: len(half_written(folder)) == 5)
    for connection in connections:
        connection.close()
    eventually(lambda: not files_below(folder, "incoming"))
    eventually(lambda: gateway.descriptors() <= descriptors)
    assert listed(gateway)["data"] == before


def test_a_kill_in_an_upload_leaves_nothing_to_be_seen(folder):
    own = os.path.join(folder, "killed")
    first = Gateway(NOWHERE, "--files", own)
    kept = upload(first).json()
    connection = begin_upload(first)
    eventually(lambda: half_written(own))
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    connection.close()
    second = Gateway(NOWHERE, "--files", own)
    assert listed(second)["data"] == [kept]
    assert second.ask("GET", f"/v1/files/{kept['id']}/content").body == LINE
    assert second.stop() == 0


def test_a_stop_during_an_upload_ends(folder):
    own = os.path.join(folder, "stopped")
    gateway = Gateway(NOWHERE, "--files", own, "--drain-s", "0.2", log_level="off")
    connection = begin_upload(gateway)
    eventually(lambda: half_written(own))
    gateway.stop()
    connection.close()
    assert not files_below(own, "incoming")


def test_too_many_at_once_are_told_to_come_again(folder):
    gateway = Gateway(NOWHERE, "--files", os.path.join(folder, "many"), "--io-threads", "1")
    connections = [begin_upload(gateway, sent=10) for _ in range(64)]
    eventually(lambda: len(files_below(folder, "many/incoming")) == 64)
    answer = upload(gateway)
    assert answer.status == 503 and "retry-after" in answer.headers, answer
    for connection in connections:
        connection.close()
    eventually(lambda: upload(gateway).status == 200)
    assert gateway.stop() == 0


def test_the_quota(folder):
    own = os.path.join(folder, "quota")
    os.makedirs(os.path.join(own, "files/other"))
    with open(os.path.join(own, "files/other/" + "a.jsonl"), "wb") as file:
        file.truncate((1 << 30) - 5000)  # Nearly a GiB, of no bytes.
    gateway = Gateway(NOWHERE, "--files", own, "--files-gb", "1", log_level="off")
    kept = upload(gateway, b"x" * 3000)
    assert kept.status == 200
    answer = upload(gateway, b"x" * 3000)
    assert answer.status == 413 and answer.headers["x-should-retry"] == "false", answer
    assert answer.json()["error"]["code"] == "file_storage_full"
    assert gateway.ask("DELETE", "/v1/files/" + kept.json()["id"]).status == 200
    assert upload(gateway, b"x" * 3000).status == 200
    assert gateway.stop() == 0


def new_key(name):
    made = subprocess.run([GATEWAY, "--new-key", name], capture_output=True, text=True, check=True)
    return {"Authorization": "Bearer " + made.stderr.split("\n")[1].strip()}, made.stdout.strip()


def test_tenants(folder):
    own = os.path.join(folder, "tenants")
    (alice, alice_line), (bob, bob_line), (al, al_line) = (new_key(n) for n in ("alice", "bob", "al"))
    keys = os.path.join(folder, "keys")
    with open(keys, "w", encoding="utf-8") as file:
        file.write(f"{alice_line} tenant=../team\n{bob_line}\n{al_line} tenant=../team\n")
    gateway = Gateway(NOWHERE, "--files", own, "--keys", keys)
    assert upload(gateway).status == 401 and gateway.ask("GET", "/v1/files").status == 401
    file = upload(gateway, headers=alice).json()
    assert listed(gateway, headers=al)["data"] == [file]  # The same tenant's other key.
    assert listed(gateway, headers=bob)["data"] == []
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        answer = gateway.ask(method, f"/v1/files/{file['id']}{path}", headers=bob)
        assert answer.status == 404, answer
    answer = gateway.ask("GET", f"/v1/files?after={file['id']}", headers=bob)
    assert answer.status == 400
    assert gateway.ask("GET", f"/v1/files/{file['id']}/content", headers=al).body == LINE
    assert gateway.ask("DELETE", f"/v1/files/{file['id']}", headers=al).status == 200
    assert gateway.stop() == 0


def test_two_gateways_share_a_folder(gateway, folder):
    other = Gateway(NOWHERE, "--files", folder)
    file = upload(gateway).json()
    assert other.ask("GET", f"/v1/files/{file['id']}/content").body == LINE
    assert other.ask("DELETE", "/v1/files/" + file["id"]).status == 200
    assert gateway.ask("GET", "/v1/files/" + file["id"]).status == 404
    assert other.stop() == 0


def test_without_a_folder_the_routes_say_what_is_missing():
    gateway = Gateway(NOWHERE)
    for method, path in (("GET", ""), ("GET", "/file-x"), ("GET", "/file-x/content"),
                         ("DELETE", "/file-x")):
        answer = gateway.ask(method, "/v1/files" + path)
        assert answer.status == 404 and "--files DIR" in answer.json()["error"]["message"]
    assert upload(gateway).status == 404
    assert gateway.stop() == 0


def test_a_folder_that_cannot_be_used_ends_the_start():
    got = subprocess.run([GATEWAY, "--listen", "127.0.0.1:0", "--files", "/dev/null",
                          "--log-level", "off"],
                         capture_output=True, text=True, check=False, timeout=60 * SLOWDOWN)
    assert got.returncode == 1 and "/dev/null" in got.stderr and got.stderr.count("\n") == 1
