"""cluster/*.yaml for Kubernetes: against Kubernetes' own schemas, and the fields that KubeRay's reference lists."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import tyro
import yaml

from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.reprocess.options import ReprocessOptions

jsonschema = pytest.importorskip("jsonschema")
kubernetes = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
referencing = pytest.importorskip("referencing")

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
VERSION = "1.37"
DEFINITIONS = Path(kubernetes.__file__).parent / f"kubernetes-json-schema/v{VERSION}.0-local-strict/_definitions.json"
KUBERAY = ["raycluster.yaml", "rayjob.yaml", "raycronjob.yaml"]
CORE = ["cronjob.yaml", "serviceaccount.yaml"]
OPTIONS = {"label.py": LabelOptions, "reprocess.py": ReprocessOptions}


def read(name):
    (manifest,) = yaml.safe_load_all((CLUSTER / name).read_text())
    return manifest


def spec_of(manifest):
    """The RayClusterSpec inside, wherever the kind has it."""
    spec = manifest["spec"]
    spec = spec.get("jobTemplate", spec)
    return spec.get("rayClusterSpec", spec)


def pods(manifest):
    if manifest["kind"] == "CronJob":
        return [manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]]
    spec = spec_of(manifest)
    return [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


@pytest.fixture(scope="module")
def validator():
    """Says what is wrong with the `spec` of one of KubeRay's kinds."""
    fields = yaml.safe_load((Path(__file__).parent / "kuberay.yaml").read_text())
    definitions = referencing.jsonschema.DRAFT202012.create_resource(json.loads(DEFINITIONS.read_text()))
    registry = referencing.Registry().with_resource("/api/_definitions.json", definitions)

    def problems(manifest):
        schema = {"$ref": f"#/definitions/{fields['kinds'][manifest['kind']]}", "definitions": fields["definitions"]}
        found = jsonschema.Draft202012Validator(schema, registry=registry).iter_errors(manifest["spec"])
        return [f"{error.json_path}: {error.message[:200]}" for error in found]

    return problems


@pytest.mark.parametrize("name", KUBERAY)
def test_what_kuberay_reads_has_only_fields_that_it_knows(name, validator):
    manifest = read(name)
    assert manifest.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert manifest["apiVersion"] == "ray.io/v1"
    assert validator(manifest) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("workerGroupSpecs", 0, "minReplica"), 0),
        (("workerGroupSpecs", 0, "maxReplicas"), "8"),
        (("headGroupSpec", "template", "spec", "containers", 0, "imagee"), "proxyclip"),
        (("headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("authOptions", "token"), "secret"),
    ],
)
def test_a_field_that_kuberay_would_refuse_is_found(path, value, validator):
    manifest = read("raycluster.yaml")
    place = manifest["spec"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert len(validator(manifest)) == 1


@pytest.mark.parametrize("name", CORE)
def test_what_kubernetes_itself_reads_is_valid(name):
    kubernetes.validate(read(name), VERSION, strict=True)


def test_the_same_cluster_stands_in_all_three():
    specs = [spec_of(read(name)) for name in KUBERAY]
    assert specs[0] == specs[1] == specs[2]


def test_the_cluster_costs_no_gpu_until_a_job_asks_for_one():
    (group,) = spec_of(read("raycluster.yaml"))["workerGroupSpecs"]
    assert (group["minReplicas"], group["replicas"]) == (0, 0)
    assert group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    for name in ("rayjob.yaml", "raycronjob.yaml"):
        spec = read(name)["spec"]
        assert spec.get("jobTemplate", spec)["shutdownAfterJobFinishes"] is True
    assert read("cronjob.yaml")["spec"]["concurrencyPolicy"] == "Forbid"


@pytest.mark.parametrize("name", [*KUBERAY, "cronjob.yaml"])
def test_pods_have_no_rights_that_they_do_not_need(name):
    for pod in pods(read(name)):
        assert pod["serviceAccountName"] == read("serviceaccount.yaml")["metadata"]["name"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", sorted(path.name for path in CLUSTER.glob("*.yaml")))
def test_no_file_holds_a_secret(name):
    text = (CLUSTER / name).read_text()
    assert not re.search(r"AWS_(SECRET|ACCESS)|AKIA[0-9A-Z]{16}|PRIVATE KEY|password", text)
    assert "kind: Secret" not in text
    for variable in re.findall(r"name: (RAY_AUTH_TOKEN)\n\s+(\w+):", text):
        assert variable[1] == "valueFrom"


def test_every_pod_uses_the_token_of_the_secret():
    secret = read("cronjob.yaml")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["env"]
    named = {variable["name"]: variable for variable in secret}
    reference = named["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert named["RAY_AUTH_MODE"]["value"] == "token"
    assert reference["key"] == "auth_token"  # what KubeRay reads
    for name in KUBERAY:
        assert spec_of(read(name))["authOptions"] == {"mode": "token", "secretName": reference["name"]}
    assert read("raycluster.yaml")["metadata"]["name"] == "proxyclip"  # the name of the service that cronjob.yaml calls


def commands():
    """The words after `python`, of every job that a manifest starts."""
    for name in KUBERAY[1:]:
        spec = read(name)["spec"]
        yield name, shlex.split(spec.get("jobTemplate", spec)["entrypoint"])
    yield "cronjob.yaml", pods(read("cronjob.yaml"))[0]["containers"][0]["args"]


@pytest.mark.parametrize(("name", "words"), [pytest.param(*each, id=each[0]) for each in commands()])
def test_the_job_that_a_manifest_starts_takes_these_options(name, words):
    python, script, *options = words
    job = Path(script).relative_to("/opt/proxyclip")
    assert python == "python"
    assert (ROOT / job).exists()
    read_options = tyro.cli(OPTIONS[job.name], args=options, config=(tyro.conf.OmitArgPrefixes,))
    assert read_options.num_gpus == 1
    assert read_options.concurrency == "auto"
    assert read_options.output.startswith("s3://")


def test_ray_has_the_same_version_everywhere():
    (ray,) = re.findall(r"^ARG RAY_VERSION=(\S+)$", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    assert {spec_of(read(name))["rayVersion"] for name in KUBERAY} == {ray}
    # The version that .ci/lowest tests; .ci/run tests newer ones.
    assert f'"ray[data]>={ray}"' in (ROOT / "pyproject.toml").read_text()
