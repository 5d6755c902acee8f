"""Metrics of a whole cluster through one gateway: what a scrape holds, that it adds up, that every
metric that is named anywhere is there, and that promtool (Debian package prometheus) agrees with
text, rules and their tests. Where promtool is not installed those three are skipped."""

import json
import re
import shutil
import subprocess
import sys
import urllib.request

import pytest

from cluster import BIN, MODEL, ROOT, Cluster, running_cluster, sample_texts, wait_for
from http_gateway import Gateway, parse

MONITORING = ROOT / "deploy/monitoring"
NAME = re.compile(r"\b(?:tessera|process)_[a-z_]+\b")
# In rules and texts, but no metrics: files, labels, groups.
OTHER_WORDS = {"tessera_rules", "tessera_rules_test", "tessera_dashboard", "tessera_key",
               "tessera_recording", "tessera_alerts", "tessera_gateway_", "process_"}


@pytest.fixture(scope="module")
def served():
    """A cluster and its gateway after some requests, a job and an error of each kind."""
    with running_cluster(2) as cluster:
        gateway = Gateway(cluster)
        texts = sample_texts(300, seed=5)
        for first in range(0, 200, 20):
            gateway.embed(texts[first:first + 20])
        gateway.embed(texts[:20])
        cluster.tessera("submit", "-", "--out", cluster.folder / "out",
                        input="\n".join(texts).encode())
        with pytest.raises(OSError):
            gateway.embed(["x " * 100_000])
        with pytest.raises(OSError):
            gateway.embed(["text"], model="none")
        wait_for(lambda: len(gateway.metrics()[0].get("tessera_worker_batches_total", {})) == 2 and
                 sum(gateway.metrics()[0]["tessera_worker_tokens_total"].values()) ==
                 sum(v for k, v in gateway.metrics()[0]["tessera_tokens_total"].items()
                     if 'source="computed"' in k), "the workers' reports")
        yield cluster, gateway


def test_one_scrape_has_gateway_coordinator_and_every_worker(served):
    cluster, gateway = served
    wait_for(lambda: gateway.metrics()[0]["tessera_gateway_coordinator_up"] == {None: 1},
             "the gateway's word of its coordinator, said once a second")
    text, headers = gateway.get("/metrics")
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples, types = parse(text)
    assert samples["tessera_gateway_coordinator_up"] == {None: 1}
    assert samples["tessera_workers"] == {'model="demo-model"': 2}
    for worker in cluster.workers:
        label = f'worker="{worker.name}",model="demo-model"'
        assert samples["tessera_worker_peak_tokens_per_second"][label] > 0
        assert samples["tessera_worker_max_batch_tokens"][label] > 0
    for name, kind in types.items():
        assert name.endswith("_total") == (kind == "counter"), name
        if kind == "histogram":
            assert name.endswith(("_seconds", "_ratio")), name


def test_figures_add_up(served):
    cluster, gateway = served
    samples, _ = gateway.metrics()

    def total(name, *parts):
        return sum(v for k, v in samples[name].items() if all(p in (k or "") for p in parts))

    # 200 texts computed, 20 of them asked again; the job of 300 has those 200 too. One more by which
    # the gateway found that it is ready.
    assert total("tessera_items_total", 'lane="interactive"', 'source="computed"') == 200 + 1
    assert total("tessera_items_total", 'lane="interactive"', 'source="memory"') == 20
    assert total("tessera_items_total", 'lane="bulk"') == 300
    assert total("tessera_items_total", 'source="computed"') == 300 + 1
    assert total("tessera_item_errors_total", "TOO_LONG") == 1
    assert total("tessera_items_total", 'source="none"') == 1
    busy = total("tessera_worker_busy_seconds_total")
    assert busy > 0
    for name in ("tessera_worker_batch_duration_seconds_sum", "tessera_worker_item_duration_seconds_sum",
                 "tessera_batch_duration_seconds_sum"):
        parts = ['stage="compute"'] if name.startswith("tessera_batch") else []
        assert total(name, *parts) == pytest.approx(busy, rel=1e-3), name
    assert total("tessera_item_duration_seconds_sum", 'stage="compute"') == pytest.approx(
        busy, rel=0.02), "items add up to the time busy, but for whole microseconds"
    assert total("tessera_worker_sequences_total") == 300 + 1
    assert total("tessera_worker_batches_total") == total("tessera_batches_total")
    status = cluster.status()
    assert total("tessera_worker_tokens_total") == status["tokens_done"]
    answered = [v for k, v in samples["tessera_gateway_http_requests_total"].items()
                if 'route="/v1/embeddings"' in k and 'code="200"' in k]
    assert answered == [11]


def test_every_metric_that_is_named_is_there(served):
    _, gateway = served
    samples, types = gateway.metrics()
    present = set(types) | set(samples)
    # Not yet, in a cluster where nothing of the kind has happened.
    silent = {"tessera_worker_temperature_celsius"}
    places = [*MONITORING.glob("tessera_*.yml"), MONITORING / "tessera_dashboard.json",
              MONITORING / "README.md", ROOT / "clients/gateway/README.md",
              ROOT / "clients/gateway/page/page.html", ROOT / "README.md", ROOT / "ARCHITECTURE.md"]
    named = {}
    for place in places:
        for name in NAME.findall(place.read_text(encoding="utf-8")):
            if name not in OTHER_WORDS:
                named.setdefault(name, place.name)
    assert len(named) > 30
    missing = {name: place for name, place in named.items() if name not in present | silent}
    assert not missing
    source = (ROOT / "coordinator/core/scheduling/worker_metrics.cpp").read_text(encoding="utf-8")
    assert all(name in source for name in silent)


def test_the_dashboard_is_as_its_script_writes_it():
    subprocess.run([sys.executable, MONITORING / "make_dashboard.py", "--check"], check=True)


def test_the_page_is_sent_with_a_policy_and_its_events_are_json(served):
    _, gateway = served
    page, headers = gateway.get("/")
    assert headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "sha256-" in headers["content-security-policy"]
    hosts = set(re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]+", page)) - {"http://www.w3.org"}
    assert not hosts, "the page loads nothing from elsewhere"
    with urllib.request.urlopen(gateway.url + "/events", timeout=30) as events:
        assert events.headers["content-type"] == "text/event-stream"
        while not (line := events.readline().decode()).startswith("data: "):
            pass
    event = json.loads(line[len("data: "):])
    assert event["models"][0]["name"] == "demo-model"
    assert event["jobs"][0]["items_done"] == 300
    assert event["metrics"]["tessera_tokens_total"]["samples"]


def test_without_a_coordinator_the_gateway_still_tells_of_itself(tmp_path):
    port_file = tmp_path / "gateway.json"
    process = subprocess.Popen([BIN / "tessera-gateway", "--listen", "127.0.0.1:0", "--coordinator",
                                "tcp://127.0.0.1:1", "--port-file", port_file,
                                "--log-level", "off"])
    try:
        wait_for(port_file.exists, "the gateway")
        url = json.loads(port_file.read_text())["url"]
        with urllib.request.urlopen(url + "/metrics", timeout=30) as answer:
            samples, _ = parse(answer.read().decode())
        assert samples["tessera_gateway_coordinator_up"] == {None: 0}
        assert "tessera_requests_total" not in samples
    finally:
        process.terminate()
        process.wait(30)


def test_a_request_can_be_followed_through_the_logs_of_every_process():
    flags = ("--log-json", "--log-level", "debug")
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with Cluster(*flags) as cluster:
        cluster._spawn("worker", "tessera-worker", "--coordinator", cluster.addresses["workers"],
                       "--model", str(MODEL), "--threads", "1", "--name", "w", *flags)
        gateway = Gateway(cluster, *flags)
        body = json.dumps({"model": "demo-model", "input": ["some text"]}).encode()
        request = urllib.request.Request(
            gateway.url + "/v1/embeddings", body,
            {"content-type": "application/json", "x-request-id": "req-of-a-test",
             "traceparent": traceparent})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.headers["x-request-id"] == "req-of-a-test"

        def lines_of(name):
            text = (cluster.folder / f"{name}.log").read_text(encoding="utf-8")
            whole = text[:text.rfind("\n") + 1]  # The last one may be half written.
            return [json.loads(line) for line in whole.splitlines()]

        def is_followed(name):
            return [line for line in lines_of(name)
                    if line.get("request_id") == "req-of-a-test"
                    and line.get("traceparent") == traceparent and line["process"] == name]

        for name in ("gateway", "coordinator", "worker"):
            wait_for(lambda: is_followed(name), f"a line of the {name} about the request")
            assert all({"time", "level", "process", "message"} <= set(line)
                       for line in lines_of(name))


def promtool(*arguments, text=None):
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, input=text,
                          cwd=MONITORING)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_has_nothing_to_say_of_the_text(served):
    assert promtool("check", "metrics", text=served[1].get("/metrics")[0]).strip() == ""


def test_promtool_accepts_the_rules():
    promtool("check", "rules", "tessera_rules.yml")


def test_alerts_say_what_their_tests_say():
    promtool("test", "rules", "tessera_rules_test.yml")


def test_promtool_parses_every_expression_of_the_dashboard(tmp_path):
    panels = json.loads((MONITORING / "tessera_dashboard.json").read_text())["panels"]
    rules = [{"record": f"panel:{i}", "expr": target["expr"].replace("$__rate_interval", "1m")}
             for i, target in enumerate(t for panel in panels for t in panel["targets"])]
    file = tmp_path / "rules.json"  # YAML, too.
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(file))
