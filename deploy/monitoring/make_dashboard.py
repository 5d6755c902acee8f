#!/usr/bin/env python3
"""Writes tessera_dashboard.json beside this file: a list of panels is easier to keep right than
Grafana's JSON. `--check` only says whether the file is as this script would write it."""

import json
import pathlib
import sys

ONE = "max without (instance)"  # Every gateway tells the same coordinator's figures.


def rate(metric, by, matcher=""):
    return f"sum by ({by}) ({ONE} (rate({metric}{matcher}[$__rate_interval])))"


def quantile(q, metric, by, matcher=""):
    inner = f"sum by (le, {by}) ({ONE} (rate({metric}_bucket{matcher}[$__rate_interval])))"
    return f"histogram_quantile({q}, {inner})"


# title, unit, width of 24, kind, [(expression, legend)]
ROWS = [
    [("Tokens per second", "short", 6, "stat",
      [(f"sum({ONE} (rate(tessera_tokens_total[$__rate_interval])))", "")]),
     ("From cache", "percentunit", 4, "stat", [("tessera:hit_ratio5m", "")]),
     ("Backlog", "s", 4, "stat", [("tessera:backlog_seconds", "{{model}}")]),
     ("Workers", "short", 4, "stat", [("max by (model) (tessera_workers)", "{{model}}")]),
     ("Coordinator answers", "short", 3, "stat", [("min(tessera_gateway_coordinator_up)", "")]),
     ("Ledger answers", "short", 3, "stat", [("max(tessera_ledger_up)", "")])],
    [("Tokens by source", "short", 12, "timeseries",
      [(rate("tessera_tokens_total", "source"), "{{source}}")]),
     ("Items by source", "short", 12, "timeseries",
      [(rate("tessera_items_total", "source"), "{{source}}")])],
    [("Request time", "s", 8, "timeseries",
      [(quantile(0.5, "tessera_request_duration_seconds", "lane"), "p50 {{lane}}"),
       (quantile(0.95, "tessera_request_duration_seconds", "lane"), "p95 {{lane}}"),
       (quantile(0.99, "tessera_request_duration_seconds", "lane"), "p99 {{lane}}")]),
     ("Item time by stage, p95", "s", 8, "timeseries",
      [(quantile(0.95, "tessera_item_duration_seconds", "lane, stage"), "{{lane}} {{stage}}")]),
     ("Batch time by stage, p95", "s", 8, "timeseries",
      [(quantile(0.95, "tessera_batch_duration_seconds", "stage"), "{{stage}}")])],
    [("Tokens that wait", "short", 8, "timeseries",
      [(f"sum by (lane, length_class) ({ONE} (tessera_waiting_tokens))",
        "{{lane}} {{length_class}}")]),
     ("Items that wait", "short", 8, "timeseries",
      [(f"sum by (lane) ({ONE} (tessera_waiting_items))", "{{lane}}"),
       ("max(tessera_items_in_work)", "in work")]),
     ("Oldest that waits", "s", 8, "timeseries",
      [("max by (lane) (tessera_waiting_oldest_age_seconds)", "{{lane}}")])],
    [("Worker tokens per second", "short", 8, "timeseries",
      [("max by (worker) (tessera_worker_tokens_per_second)", "{{worker}}"),
       (f"sum({ONE} (tessera_worker_peak_tokens_per_second))", "peak of all")]),
     ("Worker busy", "percentunit", 8, "timeseries",
      [(f"{ONE} (rate(tessera_worker_busy_seconds_total[$__rate_interval]))", "{{worker}}")]),
     ("Batch fill, mean", "percentunit", 8, "timeseries",
      [(f"{ONE} (rate(tessera_worker_batch_fill_ratio_sum[$__rate_interval])"
        " / rate(tessera_worker_batch_fill_ratio_count[$__rate_interval]))", "{{worker}}")])],
    [("Worker temperature", "celsius", 8, "timeseries",
      [("max by (worker) (tessera_worker_temperature_celsius)", "{{worker}}")]),
     ("Batches", "short", 8, "timeseries",
      [(f"sum({ONE} (rate(tessera_batches_total[$__rate_interval])))", "answered"),
       (f"sum({ONE} (rate(tessera_batches_lost_total[$__rate_interval])))", "lost"),
       (f"sum({ONE} (rate(tessera_items_retried_total[$__rate_interval])))", "items retried")]),
     ("In flight", "short", 8, "timeseries",
      [("max(tessera_batches_in_flight)", "batches"), ("max(tessera_requests_open)", "requests"),
       ("max(tessera_request_items_open)", "items of requests")])],
    [("Request errors", "short", 8, "timeseries",
      [(rate("tessera_request_errors_total", "code"), "{{code}}"),
       (f"sum({ONE} (rate(tessera_request_quota_refusals_total[$__rate_interval])))", "of these, quota")]),
     ("Item errors", "short", 8, "timeseries",
      [(rate("tessera_item_errors_total", "code"), "{{code}}")]),
     ("HTTP answers", "short", 8, "timeseries",
      [("sum by (route, code) (rate(tessera_gateway_http_requests_total[$__rate_interval]))",
        "{{route}} {{code}}")])],
    [("Jobs", "short", 6, "timeseries",
      [(f"{ONE} (tessera_jobs{{state!=\"ended\"}})", "{{state}}"),
       ("max(tessera_records_open)", "open records")]),
     ("Items of running jobs", "short", 6, "timeseries",
      [(f"{ONE} (tessera_job_items)", "{{state}}")]),
     ("Ledger time, p95", "s", 6, "timeseries",
      [(quantile(0.95, "tessera_ledger_operation_duration_seconds", "operation"), "{{operation}}")]),
     ("Memory", "bytes", 6, "timeseries",
      [("max(tessera_cache_memory_bytes)", "cached vectors"),
       ("max(tessera_job_memory_bytes)", "jobs"), ("max(tessera_ledger_owed_bytes)", "owed"),
       ("process_resident_memory_bytes{job=\"tessera\"}", "gateway {{instance}}")])],
]


def panel(number, place, title, unit, kind, targets):
    return {
        "id": number, "title": title, "type": kind, "gridPos": place,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [{"refId": chr(ord("A") + i), "expr": expr, "legendFormat": legend or "__auto"}
                    for i, (expr, legend) in enumerate(targets)],
    }


def dashboard():
    panels = []
    y = 0
    for row in ROWS:
        x, height = 0, 4 if row[0][3] == "stat" else 8
        for title, unit, width, kind, targets in row:
            place = {"x": x, "y": y, "w": width, "h": height}
            panels.append(panel(len(panels) + 1, place, title, unit, kind, targets))
            x += width
        y += height
    return {
        "title": "Tessera", "uid": "tessera", "tags": ["tessera"], "schemaVersion": 39,
        "editable": True, "refresh": "15s", "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "label": "Data source", "type": "datasource",
                                 "query": "prometheus"}]},
        "panels": panels,
    }


def main():
    path = pathlib.Path(__file__).with_name("tessera_dashboard.json")
    text = json.dumps(dashboard(), indent=1) + "\n"
    if "--check" in sys.argv[1:]:
        if path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path.name} is not what {pathlib.Path(__file__).name} writes: run it")
        return
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
