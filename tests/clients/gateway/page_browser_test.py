"""The page at "/" in a real headless Chromium, with a live cluster under load: its figures against
/metrics, jobs, workers, the box to try, keyboard, and that nothing but this server is asked.
Screenshots (light, dark, phone) are left in OUT.

By hand, or as `tests/run --gateway`: needs Debian's chromium and the Python package playwright (which
needs no browser of its own).
usage: page_browser_test.py BIN_DIR [OUT]
"""

import json
import os
import pathlib
import random
import shutil
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
BIN_DIR = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build/release/bin").resolve()
OUT = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else BIN_DIR.parent / "page").resolve()
os.environ["TESSERA_BIN"] = str(BIN_DIR)
sys.path.insert(0, str(ROOT / "tests/integration"))

from playwright.sync_api import sync_playwright  # noqa: E402

from cluster import running_cluster, sample_texts  # noqa: E402
from http_gateway import Gateway  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SHOTS = {
    "light": {"viewport": {"width": 1280, "height": 900}},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2,
              "is_mobile": True, "has_touch": True},
}


def total(samples, name, *parts):
    return sum(v for k, v in samples.get(name, {}).items() if all(p in (k or "") for p in parts))


class Load:
    """Queries of four clients, some over-long, until it is stopped; a job beside them."""

    def __init__(self, cluster, gateway):
        self.gateway = gateway
        self.texts = sample_texts(3000, duplicates=0.3, seed=9)
        self.running = True
        self.threads = [threading.Thread(target=self.ask, args=(i,)) for i in range(4)]
        for thread in self.threads:
            thread.start()
        many = cluster.folder / "many.txt"
        many.write_text("\n".join(sample_texts(60_000, seed=4)), encoding="utf-8")
        self.job = cluster.start_submit(many, "--out", cluster.folder / "vectors")

    def ask(self, seed):
        source = random.Random(seed)
        while self.running:
            try:
                if source.random() < 0.03:
                    self.gateway.embed(["word " * 60_000])
                else:
                    self.gateway.embed(source.sample(self.texts, source.randint(1, 8)))
            except OSError:
                pass  # An over-long text is answered 400.
            time.sleep(source.random() * 0.1)

    def stop(self):
        self.running = False
        for thread in self.threads:
            thread.join()
        self.job.wait(600)


class Page:
    def __init__(self, browser, gateway, **kind):
        self.context = browser.new_context(**kind)
        self.page = self.context.new_page()
        self.complaints, self.asked = [], set()
        self.page.on("console", lambda m: m.type == "error" and self.complaints.append(m.text))
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.on("request", lambda r: self.asked.add(r.url.split("/")[2] if "//" in r.url else
                                                         r.url.split(":")[0]))
        self.page.goto(gateway.url)
        self.wait_for_events(2)

    def events(self):
        return int(self.page.get_attribute("body", "data-events") or 0)

    def wait_for_events(self, more):
        wanted = self.events() + more
        deadline = time.monotonic() + 120
        while self.events() < wanted:
            assert time.monotonic() < deadline, "no events come"
            self.page.wait_for_timeout(100)

    def figure(self, name):
        return float(self.page.get_attribute("#" + name, "data-value"))

    def compare(self):
        self.page.locator("#compare").click()
        self.page.locator("#matrix td[data-value]").first.wait_for(timeout=60_000)


def check_under_load(page, gateway):
    """Totals lie between two scrapes around them, rates near what the scrapes give."""
    before, _ = gateway.metrics()
    began = time.monotonic()
    page.wait_for_events(8)
    shown = {name: page.figure(name) for name in
             ("tokens-total", "items-total", "requests-total", "errors-total", "hits")}
    shown_rate = page.figure("tokens-rate")
    after, _ = gateway.metrics()
    passed = time.monotonic() - began
    hits = ['source="joined"', 'source="memory"', 'source="storage"']

    def bounds(function):
        return function(before), function(after)

    for name, function in {
            "tokens-total": lambda s: total(s, "tessera_tokens_total"),
            "items-total": lambda s: total(s, "tessera_items_total"),
            "requests-total": lambda s: total(s, "tessera_requests_total"),
            "errors-total": lambda s: total(s, "tessera_request_errors_total") +
            total(s, "tessera_item_errors_total"),
            "hits": lambda s: sum(total(s, "tessera_items_total", hit) for hit in hits)}.items():
        low, high = bounds(function)
        assert low <= shown[name] <= high, (name, low, shown[name], high)
    low, high = bounds(lambda s: total(s, "tessera_tokens_total"))
    mean = (high - low) / passed
    assert mean > 0 and 0.2 * mean < shown_rate < 5 * mean, (mean, shown_rate)
    workers = page.page.locator("#workers tbody tr")
    assert workers.count() == total(after, "tessera_workers") == 2
    assert page.page.locator("#jobs tbody tr").count() >= 1
    assert "TOO_LONG" in page.page.locator("#errors").inner_text()
    assert page.page.locator("#latency tbody tr").count() >= 8
    assert page.page.locator("#chart .stroke").get_attribute("d").startswith("M")
    print(f"under load: {shown_rate:.0f} tokens/s shown, {mean:.0f} by two scrapes {passed:.0f} s apart")


def check_at_rest(page, gateway):
    """When nothing happens any more, page and /metrics say the same, to the last digit."""
    deadline = time.monotonic() + 60
    while True:
        page.wait_for_events(2)
        samples, _ = gateway.metrics()
        pairs = [(page.figure("tokens-total"), total(samples, "tessera_tokens_total")),
                 (page.figure("items-total"), total(samples, "tessera_items_total")),
                 (page.figure("requests-total"), total(samples, "tessera_requests_total")),
                 (page.figure("waiting"), total(samples, "tessera_waiting_tokens"))]
        if all(shown == scraped for shown, scraped in pairs):
            break
        assert time.monotonic() < deadline, pairs
    hits = sum(total(samples, "tessera_items_total", f'source="{s}"')
               for s in ("joined", "memory", "storage"))
    good = hits + total(samples, "tessera_items_total", 'source="computed"')
    assert abs(page.figure("hit-ratio") - hits / good) < 1e-9
    for row in page.page.locator("#workers tbody tr").all():
        peak = float(row.locator("[data-key=peak]").get_attribute("data-value"))
        label = f'worker="{row.get_attribute("data-row")}"'
        assert abs(peak / total(samples, "tessera_worker_peak_tokens_per_second", label) - 1) < 0.01
    job = page.page.locator("#jobs tbody tr").first
    assert "60K of 60K" in job.inner_text() and "done" in job.inner_text()
    print("at rest: " + ", ".join(f"{shown:.0f}" for shown, _ in pairs) + " on both sides")


def check_matrix(page, gateway):
    page.compare()
    texts = [i.input_value() for i in page.page.locator("#texts input").all()]
    rows = [e["embedding"] for e in gateway.embed(texts)["data"]]
    expected = [sum(a * b for a, b in zip(x, y)) for x in rows for y in rows]
    shown = [float(td.get_attribute("data-value"))
             for td in page.page.locator("#matrix td[data-value]").all()]
    assert len(shown) == 9 and max(abs(a - b) for a, b in zip(shown, expected)) < 1e-6


def check_keyboard(page):
    """On a fresh page: the skip link, a fourth text by Tab and Enter, and what a screen reader is
    told."""
    body = page.page
    body.keyboard.press("Tab")
    assert body.evaluate_handle("() => document.activeElement").as_element().get_attribute(
        "class") == "skip"
    body.keyboard.press("Enter")
    body.locator("#texts input").last.focus()
    for _ in range(3):  # Remove, Compare, Add a text.
        body.keyboard.press("Tab")
    body.keyboard.press("Enter")
    body.keyboard.type("write a letter")
    body.keyboard.press("Enter")  # Submits.
    body.locator("#matrix tbody tr").nth(3).wait_for(timeout=60_000)
    assert body.locator("#matrix").get_attribute("aria-live") == "polite"
    assert body.get_by_role("row", name="4 write a letter").count() == 1
    assert body.get_by_role("button", name="Remove text 4").count() == 1
    assert body.get_by_role("table", name="Workers").count() == 1
    assert body.get_by_role("status").count() == 1
    pause = body.get_by_role("button", name="Pause")
    pause.press("Space")
    figure = page.figure("requests-total")
    page.wait_for_events(2)
    assert page.figure("requests-total") == figure, "paused figures stand still"
    body.get_by_role("button", name="Go on").press("Space")
    unlabelled = body.locator("input:not([aria-label]), svg:not([aria-label])").count()
    assert unlabelled == 0


def main():
    assert CHROMIUM, "chromium is not installed"
    OUT.mkdir(parents=True, exist_ok=True)
    with running_cluster(2) as cluster, sync_playwright() as playwright:
        gateway = Gateway(cluster)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        load = Load(cluster, gateway)
        try:
            pages = {name: Page(browser, gateway, **kind) for name, kind in SHOTS.items()}
            pages["light"].wait_for_events(12)
            check_under_load(pages["light"], gateway)
            for name, page in pages.items():
                page.compare()
                page.page.screenshot(path=OUT / f"{name}.png", full_page=True)
                width = page.page.evaluate_handle(
                    "() => document.documentElement").get_property("scrollWidth").json_value()
                assert width <= SHOTS[name]["viewport"]["width"], (name, "scrolls sideways", width)
        finally:
            load.stop()
        check_at_rest(pages["light"], gateway)
        check_matrix(pages["light"], gateway)
        pages["keyboard"] = Page(browser, gateway)
        check_keyboard(pages["keyboard"])
        for name, page in pages.items():
            complaints = [c for c in page.complaints if "404" not in c]  # Of /v1/batches.
            assert not complaints, (name, complaints)
            assert page.asked <= {gateway.url.split("//")[1], "data"}, page.asked
        browser.close()
    print("all held; screenshots in " + str(OUT))


if __name__ == "__main__":
    main()
