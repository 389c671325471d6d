"""The files that deploy the worker, read as the platform reads them, and held against the settings."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

import flux_engine
from builder import hub_form
from flux_engine.job.base import ParseContext
from flux_engine.job.parse import Request, parse_job
from flux_engine.models import catalog
from flux_engine.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
VARIABLES = {name.upper(): field for name, field in Settings.model_fields.items()}
OF_THE_PLATFORM = {"RUNPOD_INIT_TIMEOUT", "RUNPOD_LOG_LEVEL", "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS"}
SECRETS = {"HF_TOKEN", "CIVITAI_TOKEN", "BUCKET_ACCESS_KEY_ID", "BUCKET_SECRET_ACCESS_KEY", "REDIS_URL"}


def hub() -> dict[str, Any]:
    return dict(json.loads((ROOT / ".runpod/hub.json").read_text()))


def hub_inputs() -> dict[str, dict[str, Any]]:
    return {entry["key"]: entry["input"] for entry in hub()["config"]["env"]}


def hub_tests() -> dict[str, Any]:
    return dict(json.loads((ROOT / ".runpod/tests.json").read_text()))


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "runpod.toml").read_text())


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions as (name, rest), continued lines joined and comments dropped."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def all_of(name: str) -> list[str]:
    return [rest for found, rest in instructions() if found == name]


# ---------------------------------------------------------------------------------------- variables


def test_the_hub_s_form_has_every_setting_and_no_other() -> None:
    assert set(hub_inputs()) - OF_THE_PLATFORM == set(VARIABLES)


@pytest.mark.parametrize("name", VARIABLES)
def test_the_hub_s_form_says_what_the_settings_say(name: str) -> None:
    entry = hub_inputs()[name]
    schema = Settings.model_json_schema()["properties"][name.lower()]
    assert entry["description"] == VARIABLES[name].description
    kinds = [schema, *schema.get("anyOf", ())]
    types = {"integer": "number", "number": "number", "boolean": "boolean"}
    assert entry["type"] == types.get(schema.get("type"), "string")
    choices = [choice for kind in kinds for choice in kind.get("enum", ())]
    offered = [option["value"] for option in entry.get("options", ()) if option["value"]]
    assert offered == (choices or (["true", "false"] if {"type": "boolean"} in kinds else []))
    assert (entry.get("min"), entry.get("max")) == (schema.get("minimum"), schema.get("maximum"))


def test_the_hub_s_defaults_are_the_worker_s() -> None:
    """What a user leaves as it is gives the same settings as an empty environment, but for the model."""
    form = {key: str(entry["default"]) for key, entry in hub_inputs().items()}
    filled, empty = Settings.from_environment(form), Settings.from_environment({})
    assert filled.model_copy(update={"flux_model": None}) == empty
    assert filled.flux_model is not None
    assert catalog.find(filled.flux_model) is not None


@pytest.mark.parametrize("preset", hub()["config"]["presets"], ids=lambda preset: preset["name"])
def test_a_preset_names_a_model_of_the_catalogue(preset: dict[str, Any]) -> None:
    assert set(preset["defaults"]) <= set(hub_inputs())
    assert catalog.find(preset["defaults"]["FLUX_MODEL"]) is not None


@pytest.mark.parametrize(
    "environment",
    [
        project()["project"]["env_vars"],
        {entry["key"]: entry["value"] for entry in hub_tests()["config"]["env"]},
    ],
    ids=["runpod.toml", "tests.json"],
)
def test_the_other_files_set_what_exists(environment: dict[str, str]) -> None:
    assert set(environment) <= set(VARIABLES) | OF_THE_PLATFORM
    Settings.from_environment(environment)


def test_the_form_is_current() -> None:
    assert hub_form.PAGE.read_text(encoding="utf-8") == hub_form.page(), "run `make docs`"


def test_the_guide_names_no_variable_that_does_not_exist() -> None:
    guide = (ROOT / "docs/deploy.md").read_text()
    named = set(re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)\b", guide))
    assert named <= set(VARIABLES) | OF_THE_PLATFORM
    assert {"FLUX_MODEL", "MODEL_VOLUME", "HF_TOKEN"} <= named


def test_the_guide_names_files_that_exist() -> None:
    guide = (ROOT / "docs/deploy.md").read_text()
    for path in re.findall(r"(?:builder|docs|\.runpod)/[\w./-]+\w", guide):
        assert (ROOT / path).exists(), path


def test_the_page_about_the_queue_names_tests_that_exist() -> None:
    page = (ROOT / "docs/queue.md").read_text()
    tests = "".join(path.read_text() for path in ROOT.glob("tests/**/test_*.py"))
    for name in re.findall(r"\b(test_[a-z_]+)(?![\w.])", page):
        assert f"def {name}(" in tests, name


@pytest.mark.parametrize("secret", sorted(SECRETS))
def test_no_file_holds_a_secret(secret: str) -> None:
    assert hub_inputs()[secret]["default"] == ""
    for text in (str(project()), str(hub_tests()), (ROOT / "Dockerfile").read_text()):
        assert secret not in text


# --------------------------------------------------------------------------------------- Dockerfile


def test_python_is_process_one() -> None:
    assert not all_of("ENTRYPOINT")
    (command,) = all_of("CMD")
    assert json.loads(command) == ["python", "-u", "handler.py"]


def test_what_the_image_sets() -> None:
    settings = " ".join(all_of("ENV"))
    assert "RUNPOD_LOG_LEVEL=INFO" in settings
    assert "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS=true" in settings
    assert "PATH=/opt/venv/bin:$PATH" in settings
    names = {name for name in re.findall(r"(\w+)=", settings) if name != "PATH"}
    assert names <= set(VARIABLES) | OF_THE_PLATFORM


def test_a_run_as_flux_can_write_its_pictures() -> None:
    """OUTPUT_DIR is relative to the image's folder, which belongs to root."""
    (folder,) = all_of("WORKDIR")
    outputs = f"{folder}/{VARIABLES['OUTPUT_DIR'].default}"
    assert any(f"install -d -o flux {outputs}" in rest for rest in all_of("RUN"))


def test_layers_stand_in_the_order_in_which_they_change() -> None:
    text = [f"{name} {rest}" for name, rest in instructions()]
    text = text[max(i for i, line in enumerate(text) if line.startswith("FROM ")) :]
    order = [
        "apt-get install",
        "COPY builder/setup.sh",
        "bash builder/setup.sh",
        "COPY --from=code /bundled",
        "COPY --from=code /app",
        "USER",
        "CMD",
    ]
    places = [next(i for i, line in enumerate(text) if mark in line) for mark in order]
    assert places == sorted(places)
    assert "gcc" in text[places[0]]
    assert "PIP_NO_CACHE_DIR=1" in text[places[2]]


def test_whatever_is_copied_exists_and_is_let_through() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for sources in (rest.split()[:-1] for rest in all_of("COPY") if not rest.startswith("--from=code ")):
        for source in sources:
            assert (ROOT / source).exists(), source
            assert any(source == path or source.startswith(path + "/") for path in kept), source
    for path in kept:
        assert (ROOT / path).exists(), path


def test_models_can_be_fetched_by_what_the_image_holds(tmp_path: Path) -> None:
    """Its builder/ has a few modules of ours: all that the one which is run imports."""
    (tmp_path / "flux_engine").symlink_to(ROOT / "flux_engine")
    (tmp_path / "builder").mkdir()
    for rest in all_of("COPY"):
        *sources, target = rest.split()
        if target == "/app/builder/":
            for source in sources:
                shutil.copy(ROOT / source, tmp_path / "builder")
    command = [sys.executable, "builder/fetch_models.py", "--list", "--volume", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "FLUX.1-schnell" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize("path", [".env", ".git/config", "outputs/a.png", "tests/conftest.py", "id_rsa"])
def test_nothing_else_gets_into_the_image(path: str) -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert not any(path == rule[1:] or path.startswith(rule[1:] + "/") for rule in rules if rule.startswith("!"))
    assert any(fnmatch("flux_engine/__pycache__", rule) for rule in rules[1:] if not rule.startswith("!"))


@pytest.mark.parametrize("path", [".env", ".git/", ".venv/", "outputs/"])
def test_what_stays_at_home_in_development(path: str) -> None:
    assert path in (ROOT / ".runpodignore").read_text().splitlines()


@pytest.mark.parametrize("script", ["builder/setup.sh"])
def test_shell_scripts_are_valid(script: str) -> None:
    subprocess.run(["bash", "-n", ROOT / script], check=True)
    assert "set -euo pipefail" in (ROOT / script).read_text()


def test_the_image_s_steps_run_in_a_clean_environment(tmp_path: Path) -> None:
    """`setup.sh` as the Dockerfile calls it, with requirements that need no download."""
    nothing = tmp_path / "requirements.txt"
    nothing.write_text("# nothing\n")
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "VENV": str(tmp_path / "venv"), "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", ROOT / "builder/setup.sh", nothing], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-c", "import sys; assert sys.prefix != sys.base_prefix"], check=True)


# ------------------------------------------------------------------------------- hub, tests, project


def test_the_hub_entry_has_what_the_hub_asks_for() -> None:
    entry = hub()
    assert {"title", "description", "type", "category", "config"} <= set(entry)
    assert (entry["type"], entry["category"], entry["config"]["runsOn"]) == ("serverless", "image", "GPU")
    assert entry["config"]["gpuCount"] == 1
    assert all(word in entry["description"] for word in ("pictures", "videos", "LoRAs"))
    assert all(re.fullmatch(r"-?[A-Z]+_\d+(_PRO)?", pool) for pool in entry["config"]["gpuIds"].split(","))


@pytest.mark.parametrize("test", hub_tests()["tests"], ids=lambda test: test["name"])
def test_the_hub_s_tests_are_jobs_that_the_bundled_model_can_do(test: dict[str, Any]) -> None:
    tiny = catalog.find("flux-tiny")
    assert tiny is not None
    context = ParseContext(
        default_model=lambda: tiny.limits,
        find_model=lambda _: None,
        served_models=("flux-tiny",),
        default_response_format="b64_json",
        can_return_urls=False,
    )
    job = parse_job(Request(id="hub", input=test["input"]), context)
    assert job.num_inference_steps <= 8
    assert 30_000 <= test["timeout"] <= 600_000


def test_the_project_file() -> None:
    sections = project()
    assert (ROOT / sections["runtime"]["handler_path"]).is_file()
    assert (ROOT / sections["runtime"]["requirements_path"]).is_file()
    assert sections["runtime"]["python_version"] in (ROOT / "Dockerfile").read_text()
    assert re.fullmatch(r"[0-9a-f]{8}", sections["project"]["uuid"])
    assert all(re.fullmatch(r"\d+/(http|tcp)", port) for port in sections["project"]["ports"].split(", "))
    assert sections["project"]["env_vars"]["RUNPOD_SKIP_AUTO_SYSTEM_CHECKS"] == "true"
    assert sections["project"]["volume_mount_path"] == str(VARIABLES["MODEL_VOLUME"].default)
    assert hub()["config"]["allowedCudaVersions"] == hub_tests()["config"]["allowedCudaVersions"]
    versions = [tuple(map(int, version.split("."))) for version in hub()["config"]["allowedCudaVersions"]]
    assert versions[0] == (13, 0)  # what torch's wheel carries; newer drivers run it as well
    assert len(versions) > 1
    assert versions == sorted(versions)


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == flux_engine.__version__
