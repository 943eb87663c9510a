"""cluster/aws.yaml and gcp.yaml, as `ray up` reads them: Ray's schema, with Ray's defaults filled in."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

CLUSTER = Path(__file__).resolve().parents[2] / "cluster"


@pytest.fixture(params=["aws", "gcp"])
def config(request):
    return yaml.safe_load((CLUSTER / f"{request.param}.yaml").read_text())


def test_ray_takes_it(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    filled = prepare_config(config)
    validate_config(filled)
    assert filled["setup_commands"] == filled["head_setup_commands"] == []  # else Ray installs a nightly build
    assert filled["available_node_types"].keys() == {"head", "gpu"}


@pytest.mark.parametrize(("field", "value"), [("max_worker", 8), ("max_workers", "8"), ("head_node_type", "heads")])
def test_a_mistake_in_it_is_found(config, field, value):
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validate_config(prepare_config({**config, field: value}))


def test_gpu_machines_are_spot_and_only_on_demand(config):
    gpu = config["available_node_types"]["gpu"]
    assert (gpu["min_workers"], gpu["resources"]["GPU"]) == (0, 1)
    assert gpu["max_workers"] <= config["max_workers"]
    spot = {"aws": {"MarketType": "spot"}, "gcp": {"preemptible": True, "onHostMaintenance": "TERMINATE"}}
    node = gpu["node_config"]
    found = node.get("InstanceMarketOptions") or {
        key: value for each in node["scheduling"] for key, value in each.items()
    }
    assert found == spot[config["provider"]["type"]]
    assert "GPU" not in config["available_node_types"]["head"]["resources"]


def test_machines_have_an_identity_and_a_token_but_no_keys(config):
    text = yaml.safe_dump(config)
    assert "AWS_" not in text
    assert "credentials" not in text
    assert "IamInstanceProfile" in text or "serviceAccounts" in text
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        (start,) = (line for line in config[commands] if "ray start" in line)
        assert start.startswith("export RAY_AUTH_MODE=token;")
    assert "--dashboard-host=127.0.0.1" in " ".join(config["head_start_ray_commands"])
