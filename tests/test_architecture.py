"""The house stands as docs/architecture.md draws it: which module imports which, how large rooms and functions are."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = ROOT / "flux_engine"
PACKAGES: Final = sorted({path.parent for path in PACKAGE.rglob("*.py")})
MAX_ROOT_MODULES: Final = 12
MAX_MODULES: Final = 16
MAX_FUNCTION_LINES: Final = 50

GATEWAY_ALONE: Final = """
import importlib.metadata as metadata
import re
import sys
from pathlib import Path

def named(requirement):
    return re.sub("[-_.]+", "-", re.match("[A-Za-z0-9._-]+", requirement)[0]).lower()

def needs(name):
    try:
        wanted = metadata.requires(name) or ()
    except metadata.PackageNotFoundError:
        return
    for one in wanted:
        if "extra ==" not in one:
            yield named(one)

there, open_ = set(), {named(line) for line in Path(sys.argv[1]).read_text().splitlines() if line and line[0] != "#"}
while open_:
    name = open_.pop()
    there.add(name)
    open_ |= {one for one in needs(name) if one not in there}
tops = metadata.packages_distributions()

class Absent:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in tops and not any(named(one) in there for one in tops[top]):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import flux_engine.cli.gateway
import flux_engine.queues.celery
import flux_engine.queues.runpod
"""

IMPORT_EVERYTHING: Final = """
import importlib, pkgutil, sys
import flux_engine, handler
for module in pkgutil.walk_packages(flux_engine.__path__, "flux_engine."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(*sorted(set(sys.argv[1:]) & set(sys.modules)))
"""


def lint_imports(house: Path) -> tuple[int, str]:
    found = subprocess.run(
        (
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as c; c()",
            "--no-cache",
            "--no-logo",
        ),
        cwd=house,
        capture_output=True,
        text=True,
        check=False,
        env={"COLUMNS": "200", "PATH": "/usr/bin:/bin"},
    )
    return found.returncode, found.stdout + found.stderr


WRONG: Final = {  # a module that does not belong, and the link that lint-imports has to name
    "gateway/direct.py": ("import torch\n", "flux_engine.gateway.direct -> torch"),
    "gateway/indirect.py": (
        "def draw() -> None:\n    from flux_engine.models.manager import FluxModelManager\n",
        "flux_engine.gateway.indirect -> flux_engine.models.manager (l.2) flux_engine.models.manager -> torch",
    ),
    "gateway/boundary.py": (
        "from flux_engine.worker.worker import Worker\n",
        "gateway.boundary -> flux_engine.worker.worker",
    ),
    "gateway/pixels.py": ("from flux_engine.generate.gpu import GpuThread\n", "gateway.pixels -> flux_engine.generate"),
    "job/links.py": ("from flux_engine.net.fetch import Fetcher\n", "flux_engine.job.links -> flux_engine.net.fetch"),
    "media/sizes.py": ("import flux_engine.media.shapes\n", "No cycles are allowed in flux_engine.media."),
    "media/shapes.py": ("import flux_engine.media.sizes\n", "No cycles are allowed in flux_engine.media."),
    "models/eager.py": ("import torch\n", "flux_engine.models.eager -> torch (l.1)"),
    "results/lookup.py": ("def ask() -> None:\n    import redis\n", "flux_engine.results.lookup -> redis"),
    "inputs/bucket.py": ("def ask() -> None:\n    import boto3\n", "flux_engine.inputs.bucket -> boto3"),
    "cli/queue.py": ("def ask() -> None:\n    import celery\n", "flux_engine.cli.queue -> celery"),
    "cli/sdk.py": ("def ask() -> None:\n    import runpod\n", "flux_engine.cli.sdk -> runpod"),
}


@pytest.fixture(scope="module")
def found_in_a_worse_house(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What lint-imports says of this house with the wrong modules added."""
    house = tmp_path_factory.mktemp("house")
    for path in (ROOT / "pyproject.toml", *PACKAGE.rglob("*.py"), *(ROOT / "builder").glob("*.py")):
        target = house / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for name, (source, _) in WRONG.items():
        module = house / "flux_engine" / name
        module.parent.mkdir(exist_ok=True)
        (module.parent / "__init__.py").touch()
        module.write_text(source)
    code, said = lint_imports(house)
    assert code == 1, said
    return " ".join(said.split())


def test_every_import_goes_down() -> None:
    code, said = lint_imports(ROOT)
    assert code == 0, said


@pytest.mark.parametrize("link", [link for _, link in WRONG.values()], ids=list(WRONG))
def test_an_import_that_goes_up_or_out_of_its_rooms_is_found(found_in_a_worse_house: str, link: str) -> None:
    assert link in found_in_a_worse_house


def test_importing_all_of_it_imports_nothing_heavy() -> None:
    heavy = ("torch", "diffusers", "transformers", "peft", "torchao", "cache_dit", "accelerate")
    command = (sys.executable, "-c", IMPORT_EVERYTHING, *heavy)
    environment = os.environ | {"REDIS_URL": "redis://127.0.0.1:1"}  # Celery's worker reads its settings at import
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_a_gateway_needs_no_more_than_its_requirements() -> None:
    """Its image holds no other distribution: one that a worker's brings must not be imported."""
    command = (sys.executable, "-c", GATEWAY_ALONE, str(ROOT / "builder" / "requirements-gateway.txt"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_root_holds_few_modules() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MAX_ROOT_MODULES


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_package_has_a_docstring_and_few_modules(package: Path) -> None:
    assert len(list(package.glob("*.py"))) <= MAX_MODULES
    assert ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8")))


def test_functions_are_short() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines"
        for path in (ROOT / "handler.py", *PACKAGE.rglob("*.py"), *(ROOT / "builder").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert long == []
