"""A gateway with a folder for files, and what the tests of batches do at it."""

import base64
import json
import urllib.error
import urllib.request
import uuid

from cluster import kill_9, wait_for
from http_gateway import parse

MODEL = "demo-model"
ENDED = ("completed", "failed", "expired", "cancelled")


class BatchGateway:
    """Each one of a cluster has another name; a name may be started again after a kill."""

    def __init__(self, cluster, files, name="gateway-0", lease_s=2, args=()):
        self.cluster, self.files, self.name = cluster, files, name
        self.flags = ["--files", str(files), "--batch-lease-s", str(lease_s), *map(str, args)]
        self.start()

    def start(self):
        port_file = self.cluster.folder / f"{self.name}.json"
        port_file.unlink(missing_ok=True)
        self.process = self.cluster._spawn(
            self.name, "tessera-gateway", "--listen", "127.0.0.1:0", "--coordinator",
            self.cluster.addresses["clients"], "--port-file", str(port_file), *self.flags)
        wait_for(port_file.exists, self.name)
        self.url = json.loads(port_file.read_text())["url"]
        wait_for(self.is_ready, f"{self.name} that is ready")

    def kill(self):
        kill_9(self.process)

    def is_ready(self):
        try:
            return self.ask("GET", "/health/ready")[0] == 200
        except OSError:
            return False

    def ask(self, method, path, body=None, key=None, content_type="application/json"):
        """(status, bytes)"""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        headers = {"content-type": content_type}
        if key:
            headers["authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def json(self, method, path, body=None, key=None, status=200):
        got, text = self.ask(method, path, body, key)
        assert got == status, (method, path, got, text[:500])
        return json.loads(text)

    def upload(self, content, key=None):
        if not isinstance(content, bytes):
            content = "".join(json.dumps(line) + "\n" for line in content).encode()
        cut = uuid.uuid4().hex.encode()
        body = (b"--" + cut + b'\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
                b"--" + cut + b'\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"'
                b"\r\nContent-Type: application/octet-stream\r\n\r\n" + content + b"\r\n--" + cut +
                b"--\r\n")
        status, text = self.ask("POST", "/v1/files", body, key,
                                "multipart/form-data; boundary=" + cut.decode())
        assert status == 200, text
        return json.loads(text)["id"]

    def create(self, file_id, key=None, status=200, **fields):
        return self.json("POST", "/v1/batches", {
            "input_file_id": file_id, "endpoint": "/v1/embeddings", "completion_window": "24h",
            **fields}, key, status)

    def batch(self, batch_id, key=None):
        return self.json("GET", f"/v1/batches/{batch_id}", key=key)

    def wait(self, batch_id, key=None, status=ENDED):
        """The batch once it has one of the statuses; ends when it can have none of them any more."""
        def there():
            batch = self.batch(batch_id, key)
            assert batch["status"] in status or batch["status"] not in ENDED, batch
            return batch if batch["status"] in status else None
        return wait_for(there, f"{batch_id} to be {status}")

    def wait_counts(self, batch_id, lines):
        return wait_for(lambda: self.batch(batch_id)["request_counts"]["completed"] >= lines,
                        f"{lines} lines of {batch_id}")

    def lines(self, file_id, key=None):
        if file_id is None:
            return []
        status, text = self.ask("GET", f"/v1/files/{file_id}/content", key=key)
        assert status == 200, text
        return [json.loads(line) for line in text.splitlines()]

    def embed(self, body, status=200):
        return self.json("POST", "/v1/embeddings", body, status=status)

    def total(self, name, label=""):
        """Sum of a metric over all labels that hold `label`."""
        samples, _ = parse(self.ask("GET", "/metrics")[1].decode())
        return sum(value for labels, value in samples[name].items() if label in (labels or ""))

    def batch_items(self):
        """Items of batches that this coordinator has answered: nothing else is in the bulk lane."""
        return self.total("tessera_items_total", 'lane="bulk"')

    def figure(self, name, labels):
        samples, _ = parse(self.ask("GET", "/metrics")[1].decode())
        return samples[name][labels]

    def done_on_disk(self, batch_id):
        """Lines that the last holder's progress says are safe."""
        found = sorted((self.files / "work" / batch_id).glob("progress.*.json"),
                       key=lambda path: int(path.name.split(".")[1]))
        if not found:
            return 0
        progress = json.loads(found[-1].read_text())
        return progress["completed"] + progress["failed"]


def line(custom_id, text, **body):
    return {"custom_id": str(custom_id), "method": "POST", "url": "/v1/embeddings",
            "body": {"model": MODEL, "input": text, **body}}


def decoded(data):
    return [base64.b64decode(item["embedding"]) for item in data]
