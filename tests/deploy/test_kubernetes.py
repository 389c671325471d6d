"""The manifests, as kubectl renders them: valid for three versions of Kubernetes, in step with code and settings."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import pytest
import yaml

from flux_engine.gateway.settings import GatewaySettings
from flux_engine.queues.celery import queue_named
from flux_engine.queues.celery_settings import CelerySettings
from flux_engine.settings import Settings

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "deploy" / "kubernetes"
OVERLAYS: Final = ("runpod", "gpu")
APPLIED: Final = {"runpod": "overlays/runpod", "gpu": "overlays/gpu", "first-key": "first-key"}
VERSIONS: Final = ("1.35", "1.36", "1.37")
SCHEMAS: Final = Path(__file__).parent / "schemas"
OF_THEIR_OWN: Final = ("HTTPRoute", "ScaledObject")  # custom resources: builder/custom_schemas.py takes their schemas
OF_PODS: Final = ("Deployment", "StatefulSet", "Job")
NOT_OURS: Final = ("HOME", "XDG_CACHE_HOME")

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl renders the manifests; it is not here")


@functools.cache
def rendered(overlay: str) -> tuple[dict[str, Any], ...]:
    command = ["kubectl", "kustomize", str(FOLDER / APPLIED[overlay])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return tuple(yaml.safe_load_all(done.stdout))


def named(overlay: str, kind: str, name: str) -> dict[str, Any]:
    (found,) = (one for one in rendered(overlay) if one["kind"] == kind and one["metadata"]["name"].startswith(name))
    return found


def containers(overlay: str) -> Iterator[dict[str, Any]]:
    for one in rendered(overlay):
        if one["kind"] in OF_PODS:
            pod = one["spec"]["template"]["spec"]
            yield from (*pod.get("initContainers", ()), *pod["containers"])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", APPLIED)
def test_every_object_is_valid(overlay: str, version: str) -> None:
    objects = [one for one in rendered(overlay) if one["kind"] not in OF_THEIR_OWN]
    assert objects
    for one in objects:
        kubernetes_validate.validate(one, version, strict=True)


def test_a_mistake_is_found() -> None:
    broken = {**named("gpu", "Service", "gateway"), "specs": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


@pytest.mark.parametrize(("overlay", "kind"), [("runpod", "HTTPRoute"), ("gpu", "HTTPRoute"), ("gpu", "ScaledObject")])
def test_custom_resources_are_valid_by_their_own_schemas(overlay: str, kind: str) -> None:
    facts = json.loads((SCHEMAS / f"{kind}.json").read_text(encoding="utf-8"))
    found = [one for one in rendered(overlay) if one["kind"] == kind]
    assert found
    for one in found:
        assert one["apiVersion"] == f"{facts['group']}/{facts['version']}"
        jsonschema.validate(one["spec"], facts["spec"])
        with pytest.raises(jsonschema.ValidationError, match="Additional properties"):
            jsonschema.validate({**one["spec"], "specs": 1}, facts["spec"])


def test_no_custom_resource_is_left_out() -> None:
    kinds = {one["kind"] for overlay in OVERLAYS for one in rendered(overlay) if one["apiVersion"].count(".") > 1}
    known = {"Ingress", "NetworkPolicy"}  # networking.k8s.io is Kubernetes' own
    assert kinds - known <= {*OF_THEIR_OWN} == {file.stem for file in SCHEMAS.glob("*.json")}


@pytest.mark.parametrize("overlay", APPLIED)
def test_containers_run_as_nobody_in_particular(overlay: str) -> None:
    for one in rendered(overlay):
        if one["kind"] in OF_PODS:
            assert one["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True
    for container in containers(overlay):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["requests"]
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_variable_is_a_setting(overlay: str) -> None:
    held = {**named(overlay, "ConfigMap", "flux")["data"], **named(overlay, "Secret", "flux")["stringData"]}
    own = {variable["name"] for container in containers(overlay) for variable in container.get("env", ())}
    assert (held.keys() | own) - set(NOT_OURS) <= set(known_settings())


def test_every_setting_stands_in_the_manifests() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in FOLDER.rglob("*.yaml"))
    assert [name for name in known_settings() if name not in text] == []


def known_settings() -> list[str]:
    return [
        *(name.upper() for name in Settings.model_fields),
        *GatewaySettings.variables(),
        *CelerySettings.variables(),
    ]


def test_whoever_needs_redis_reaches_it() -> None:
    (rule,) = named("gpu", "NetworkPolicy", "redis")["spec"]["ingress"]
    (names,) = rule["from"][0]["podSelector"]["matchExpressions"]
    labels = {one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] for one in pods()}
    assert set(names["values"]) == labels - {"redis"}


def pods() -> list[dict[str, Any]]:
    return [one for name in APPLIED for one in rendered(name) if one["kind"] in OF_PODS]


def test_settings_of_an_overlay_start_both_sides() -> None:
    for overlay in OVERLAYS:
        held = {**named(overlay, "ConfigMap", "flux")["data"], **named(overlay, "Secret", "flux")["stringData"]}
        assert GatewaySettings.from_environment(held).namespace == "flux"
    assert CelerySettings.from_environment(held).broker_url == "redis://redis:6379/0"


def test_workers_scale_by_the_list_that_celery_fills() -> None:
    held = named("gpu", "ConfigMap", "flux")["data"]
    settings = CelerySettings.from_environment(held)
    (trigger,) = named("gpu", "ScaledObject", "worker")["spec"]["triggers"]
    queue = queue_named(settings.celery_queue, None)
    assert trigger["metadata"]["listName"] == f"flux:{settings.namespace}:broker:{queue}"


def test_probes_ask_what_is_answered() -> None:
    gateway = next(one for one in containers("gpu") if one["name"] == "gateway")
    worker = next(one for one in containers("gpu") if one["name"] == "worker")
    for container in (gateway, worker):
        probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
        assert {name: probe["path"] for name, probe in probes.items()} == {
            "startup": "/healthz",
            "liveness": "/healthz",
            "readiness": "/readyz",
        }
        (port,) = container["ports"]
        assert {probe["port"] for probe in probes.values()} == {port["name"]}


def test_the_compose_file_s_variables_are_settings() -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
    for service in ("gateway", "worker", "worker-gpu"):
        assert compose["services"][service]["environment"].keys() <= set(known_settings())
        assert compose["services"][service]["environment"]["QUEUE"] == "celery"
