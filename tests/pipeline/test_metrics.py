"""What a job counts, read from a real Prometheus that scrapes a real cluster."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from ports import free_ports
from ray_head import ray_head, with_token

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "cluster" / "monitoring"
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
ALERTS = MONITORING / "alerts.yaml"
NUM_IMAGES, DEADLINE_S = 6, 300

# Panels that stay empty on a machine without a GPU, in a run in which no storage and no shard fails.
EMPTY = {"GPUs busy", "Shards that failed", "Storage requests sent again, per second"}

# A run that commits, hangs for half an hour, is killed and, an hour later, started again, which ends it.
RULES = """
rule_files: [{alerts}]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'ray_proxyclip_shards_pending{{output="a", WorkerId="1"}}', values: 5+0x180}}
      - series: 'ray_proxyclip_last_commit_timestamp_seconds{{output="a", WorkerId="1"}}'
        values: 0+60x5 300+0x175
      - {{series: 'ray_proxyclip_shards_pending{{output="a", WorkerId="2"}}', values: _x60 5 0+0x120}}
      - series: 'ray_proxyclip_last_commit_timestamp_seconds{{output="a", WorkerId="2"}}'
        values: _x60 3660+0x120
      - {{series: 'ray_proxyclip_images_total{{output="a", WorkerId="1", status="labelled"}}', values: '0+18x180'}}
      - {{series: 'ray_proxyclip_images_total{{output="a", WorkerId="1", status="decode_failed"}}', values: '0+2x180'}}
      - {{series: 'ray_proxyclip_images_total{{output="b", WorkerId="1", status="labelled"}}', values: '0+99x180'}}
      - {{series: 'ray_proxyclip_images_total{{output="b", WorkerId="1", status="decode_failed"}}', values: '0+1x180'}}
    alert_rule_test:
      - {{eval_time: 15m, alertname: ProxyclipNoCommit, exp_alerts: []}}
      - eval_time: 30m
        alertname: ProxyclipNoCommit
        exp_alerts: [{{exp_labels: {{severity: critical, output: a, WorkerId: "1"}}, exp_annotations: {no_commit}}}]
      - {{eval_time: 70m, alertname: ProxyclipNoCommit, exp_alerts: []}}
      - {{eval_time: 150m, alertname: ProxyclipNoCommit, exp_alerts: []}}
      - eval_time: 30m
        alertname: ProxyclipImagesFail
        exp_alerts: [{{exp_labels: {{severity: warning, output: a}}, exp_annotations: {images_fail}}}]
      - {{eval_time: 30m, alertname: ProxyclipShardsFail, exp_alerts: []}}
"""


def program(name: str) -> str:
    return shutil.which(name) or pytest.skip(f"no `{name}` found: apt-get install prometheus")


def expressions() -> dict[str, str]:
    """Of the dashboard's panels, for all outputs."""
    return {
        panel["title"]: target["expr"].replace("$output", ".*")
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    }


def written() -> dict[str, str]:
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    return expressions() | {rule["alert"]: rule["expr"] for rule in rules}


def test_dashboard_and_rules_ask_only_for_what_is_counted():
    code = (ROOT / "proxyclip" / "pipeline" / "metrics.py").read_text()
    counted = {f"ray_proxyclip_{name}_total" for name in re.findall(r'_counter\("(\w+)"', code)}
    counted |= {f"ray_proxyclip_{name}" for name in re.findall(r'_gauge\("(\w+)"', code)}
    counted.add("ray_proxyclip_images_total")
    asked = set(re.findall(r"ray_proxyclip_\w+", " ".join(written().values())))
    assert asked == counted
    page = (ROOT / "docs" / "monitoring.md").read_text()
    assert not {name for name in counted if f"`{name}`" not in page}


def test_the_rules_fire_when_they_should(tmp_path):
    """A run that hangs is told; one that was killed and is done since is not."""
    rules = {rule["alert"]: rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]}
    said = {
        name: {
            key: text.replace("{{ $labels.output }}", "a")
            .replace("{{ $value | humanizePercentage }}", "10%")
            .replace("{{ $value }}", "5")
            for key, text in rule["annotations"].items()
        }
        for name, rule in rules.items()
    }
    text = RULES.format(
        alerts=ALERTS,
        no_commit=json.dumps(said["ProxyclipNoCommit"]),
        images_fail=json.dumps(said["ProxyclipImagesFail"]),
    )
    (tmp_path / "test.yaml").write_text(text)
    ran = subprocess.run(
        [program("promtool"), "test", "rules", str(tmp_path / "test.yaml")], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.fixture
def cluster(tmp_path):
    """A cluster's environment and address, and the address of a Prometheus that finds it as Ray's manual says."""
    if sys.platform != "linux":
        pytest.skip("Ray's metrics are read on Linux")
    prometheus = program("prometheus")
    env, (port, dashboard, metrics, web) = with_token(tmp_path), free_ports(4)
    with ray_head(
        env,
        *("--node-ip-address=127.0.0.1", f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=2"),
        f"--metrics-export-port={metrics}",
    ) as folder:
        config = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [
                {
                    "job_name": "ray",
                    "file_sd_configs": [
                        {"files": [str(folder / "prom_metrics_service_discovery.json")], "refresh_interval": "1s"}
                    ],
                }
            ],
            "rule_files": [str(ALERTS)],
        }
        (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
        command = [
            prometheus,
            f"--config.file={tmp_path / 'prometheus.yaml'}",
            f"--storage.tsdb.path={tmp_path / 'db'}",
        ]
        with (tmp_path / "prometheus.txt").open("w") as said:
            server = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{web}"], stdout=said, stderr=said)
        try:
            yield env, f"127.0.0.1:{port}", f"http://127.0.0.1:{web}/api/v1/query"
        finally:
            server.kill()
            server.wait()


def ask(server: str, expression: str) -> list[dict]:
    """What Prometheus answers; no answer while it starts."""
    try:
        with urllib.request.urlopen(f"{server}?{urllib.parse.urlencode({'query': expression})}", timeout=10) as answer:
            return json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{expression}: {error.read().decode()}") from error
    except OSError:
        return []


def values(server: str, expression: str, label: str) -> dict[str, float]:
    return {each["metric"].get(label, ""): float(each["value"][1]) for each in ask(server, expression)}


@pytest.mark.slow
def test_a_real_prometheus_sees_a_run(cluster, tmp_path):
    """Counts are those of the output, and every panel of the dashboard has something to show."""
    env, address, server = cluster
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for index in range(NUM_IMAGES):
        Image.fromarray(np.full((80, 90, 3), 20 * index, np.uint8)).save(images / f"{index}.png")
    (images / "broken.jpg").write_text("not an image")
    words = ["--input", str(images), "--output", str(output), "--preset", "demo", "--shard-size", "2"]
    words += ["--vocabulary", "proxyclip/demo/vocabulary.json", "--address", address]
    ran = subprocess.run(
        [sys.executable, "jobs/label.py", *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert ran.returncode == 3, ran.stderr
    deadline = time.monotonic() + DEADLINE_S
    while values(server, "ray_proxyclip_shards_pending", "output") != {str(output): 0}:
        assert time.monotonic() < deadline, (tmp_path / "prometheus.txt").read_text()
        time.sleep(1)

    counts = values(server, "ray_proxyclip_images_total", "status")
    assert counts == {"labelled": NUM_IMAGES, "decode_failed": 1}
    read = sum(path.stat().st_size for path in images.iterdir())
    assert values(server, "ray_proxyclip_read_bytes_total", "output") == {str(output): read}
    assert values(server, "ray_proxyclip_windows_total", "output")[str(output)] >= NUM_IMAGES
    commits = [path.stat().st_mtime for path in (output / "commits").glob("*.json")]
    (last,) = values(server, "ray_proxyclip_last_commit_timestamp_seconds", "output").values()
    assert abs(last - max(commits)) < 60

    for title, expression in expressions().items():
        while not (found := ask(server, expression)) and title not in EMPTY:  # a rate needs two samples
            assert time.monotonic() < deadline, (title, expression)
            time.sleep(1)
        assert not (found and title in EMPTY), (title, found)
    assert not [alert for alert in ask(server, "ALERTS") if alert["metric"]["alertname"] == "ProxyclipNoCommit"]
