"""A gateway beside a Cluster, and what its /metrics says."""

import json
import re
import urllib.request

from cluster import wait_for


def parse(text):
    """{name: {labels: value}} and {name: type} of Prometheus' text."""
    samples, types = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types, f"{name} comes twice"
            types[name] = kind
        elif not line.startswith("#"):
            name, labels, value = re.fullmatch(r"([a-z_0-9]+)(?:\{(.*)\})? (\S+)", line).groups()
            assert labels not in samples.get(name, {}), f"twice: {line}"
            samples.setdefault(name, {})[labels] = float(value)
    return samples, types


class Gateway:
    def __init__(self, cluster, *flags):
        port_file = cluster.folder / "gateway.json"
        self.process = cluster._spawn("gateway", "tessera-gateway", "--listen", "127.0.0.1:0",
                                      "--coordinator", cluster.addresses["clients"],
                                      "--port-file", str(port_file), *flags)
        wait_for(port_file.exists, "the gateway")
        self.url = json.loads(port_file.read_text())["url"]
        wait_for(self.is_ready, "a gateway that is ready")

    def get(self, path, **headers):
        request = urllib.request.Request(self.url + path, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read().decode(), answer.headers

    def is_ready(self):
        try:
            return bool(self.get("/health/ready"))
        except OSError:
            return False

    def metrics(self):
        return parse(self.get("/metrics")[0])

    def embed(self, texts, **fields):
        body = json.dumps({"model": "demo-model", "input": texts, **fields}).encode()
        request = urllib.request.Request(self.url + "/v1/embeddings", body,
                                         {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
