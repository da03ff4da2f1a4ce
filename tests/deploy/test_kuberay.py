"""deploy/kuberay.yaml: Kubernetes' own schemas for the claim and the pods, in their strict form; for the RayJob, whose schema
is in no package, the fields of KubeRay's API reference (ray.io/v1) with their types. Nothing is started."""

from __future__ import annotations

import copy
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

import mtselect
from mtselect.__main__ import COMMANDS
from mtselect.cli import read_arguments

ROOT = Path(__file__).parents[2]
KUBERNETES = "1.34"
CLAIM, JOB = yaml.safe_load_all((ROOT / "deploy" / "kuberay.yaml").read_text(encoding="utf-8"))


def fields(required: list[str], **types: Any) -> dict[str, Any]:
    """Schema of an object that has these fields only; a type is its name or a schema."""
    return {"type": "object", "additionalProperties": False, "required": required,
            "properties": {name: {"type": kind} if isinstance(kind, str) else kind for name, kind in types.items()}}


START = {"type": "object", "additionalProperties": {"type": "string"}}
CLUSTER = fields(
    ["headGroupSpec"], rayVersion="string", enableInTreeAutoscaling="boolean", suspend="boolean", autoscalerOptions="object",
    headGroupSpec=fields(["rayStartParams", "template"], rayStartParams=START, template="object", serviceType="string",
                         headService="object", enableIngress="boolean"),
    workerGroupSpecs={"type": "array", "items": fields(
        ["groupName", "rayStartParams", "template"], groupName="string", replicas="integer", minReplicas="integer",
        maxReplicas="integer", rayStartParams=START, template="object", numOfHosts="integer", idleTimeoutSeconds="integer")})
RAY_JOB = fields(
    ["apiVersion", "kind", "metadata", "spec"], apiVersion={"const": "ray.io/v1"}, kind={"const": "RayJob"}, metadata="object",
    spec=fields(
        ["entrypoint", "rayClusterSpec"], entrypoint="string", rayClusterSpec=CLUSTER, backoffLimit="integer", jobId="string",
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]}, shutdownAfterJobFinishes="boolean",
        ttlSecondsAfterFinished="integer", activeDeadlineSeconds="integer", runtimeEnvYAML="string", suspend="boolean",
        submitterPodTemplate="object", submitterConfig="object", clusterSelector="object", entrypointNumCpus="number",
        entrypointNumGpus="number", entrypointResources="string"))


def groups(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Head, then workers."""
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def check(job: dict[str, Any]) -> None:
    """Raise what a schema says against a job."""
    jsonschema.validate(job, RAY_JOB)
    for group in groups(job):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, **group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_claim_and_job_are_what_kubernetes_takes() -> None:
    kubernetes_validate.validate(CLAIM, KUBERNETES, strict=True)
    check(JOB)


@pytest.mark.parametrize(("where", "value", "message"), [
    (("entrypoints",), "a", "entrypoints"),
    (("rayClusterSpec", "workerGroupSpecs", 0, "replicas"), "4", "is not of type 'integer'"),
    (("rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0, "is not of type 'string'"),
    (("rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0, "volumeMount"), [], "volumeMount"),
    (("rayClusterSpec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "readinessProbe", "timeoutSeconds"), "a",
     "is not of type"),
])
def test_a_slip_is_found(where: tuple[str | int, ...], value: object, message: str) -> None:
    job = copy.deepcopy(JOB)
    at = job["spec"]
    for step in where[:-1]:
        at = at[step]
    at[where[-1]] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError), match=message):
        check(job)


def test_the_entrypoint_is_a_sweep_on_ray() -> None:
    program, command, path, *rest = shlex.split(JOB["spec"]["entrypoint"])
    assert program == "mtselect" and command in COMMANDS
    mounts = [container["volumeMounts"] for group in groups(JOB) for container in group["template"]["spec"]["containers"]]
    assert all(any(path.startswith(f"{mount['mountPath']}/") for mount in mounted) for mounted in mounts)
    sweep = read_arguments([str(ROOT / "sweeps" / "quickstart.yaml"), *rest])
    assert sweep.runtime.executor == "ray" and sweep.runtime.address is None, "RAY_ADDRESS is `ray job submit`'s"


def test_every_node_has_our_image_the_claim_and_rays_version() -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split() if "==" in line)
    assert JOB["spec"]["rayClusterSpec"]["rayVersion"] == pinned["ray"]
    for group in groups(JOB):
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"] == f"mtselect:{mtselect.__version__}"
        (volume,) = group["template"]["spec"]["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
        assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"]]
    assert CLAIM["spec"]["accessModes"] == ["ReadWriteMany"]


def test_ray_parses_its_arguments() -> None:
    from ray.scripts.scripts import healthcheck, start

    for group in groups(JOB):
        given = [f"--{name}={value}" for name, value in group["rayStartParams"].items()]
        start.make_context("start", given)
        (container,) = group["template"]["spec"]["containers"]
        for probe in ("readinessProbe", "livenessProbe"):
            command = container[probe]["exec"]["command"]
            words = shlex.split(command[2]) if command[0] == "sh" else command
            words = words[words.index("ray"):]
            assert words[:2] == ["ray", "health-check"]
            healthcheck.make_context("health-check", words[2:])
