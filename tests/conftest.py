"""What every test may use: the bundled model in a worker, and the context in which jobs are parsed."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from flux_engine.build import build_models, build_worker
from flux_engine.generate.gpu import GpuThread
from flux_engine.job.base import ParseContext
from flux_engine.job.limits import ModelLimits
from flux_engine.models import catalog
from flux_engine.models.manager import FluxModelManager
from flux_engine.models.spec import ModelSpec
from flux_engine.settings import Settings
from flux_engine.worker.worker import Worker
from tests import leaks
from tests.servers import RedisProcess, S3Process

ROOT = Path(__file__).parents[1]
LONGEST = (
    "tests/runpod/test_worker_ends.py",
    "tests/runpod/test_worker.py",
    "tests/models/tuning/test_compilation.py",
    "tests/models/test_manager.py",
    "tests/test_handler.py",
    "tests/runpod/test_workers.py",
    "tests/builder/test_fetch_models.py",
    "tests/models/lora/test_manager.py",
    "tests/test_faults.py",
)
HANDLE_SECRETS = tuple(ROOT / "tests" / room for room in ("cache", "inputs", "net", "results"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that no process is left alone with one of them at the end."""
    items.sort(key=lambda item: LONGEST.index(name) if (name := _file(item)) in LONGEST else len(LONGEST))


def pytest_collection_finish() -> None:
    """What is imported by now stays: no collection of a test walks it, which would be a quarter of the run's time."""
    gc.collect()
    gc.freeze()


def _file(item: pytest.Item) -> str:
    return item.path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="session", autouse=True)
def _all_logs() -> Iterator[None]:
    """Every log line of the run is looked at, the worker's own from DEBUG on."""
    handler = leaks.LeakHandler()
    logging.getLogger().addHandler(handler)
    logging.getLogger("flux_engine").setLevel(logging.DEBUG)
    yield
    logging.getLogger().removeHandler(handler)
    assert leaks.found == [], "private, and printed by what outlived the last test"


@pytest.fixture(autouse=True)
def _nothing_private_is_logged() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("flux_engine")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    yield
    root.handlers[:] = handlers  # a test of the command line sets up logs of its own
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    private, leaks.found[:] = list(leaks.found), []
    assert private == []


@pytest.fixture(autouse=True)
def _everything_is_logged(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> None:
    """Where secrets are handled every library says all it has to say, and none of it may be private (leaks.py)."""
    if any(request.path.is_relative_to(room) for room in HANDLE_SECRETS):
        caplog.set_level(logging.DEBUG)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Process]:
    """Shared by the tests that do not break it."""
    server = S3Process(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisProcess(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def tiny() -> ModelSpec:
    spec = catalog.find("flux-tiny")
    assert spec is not None
    return spec


@pytest.fixture(scope="session")
def context(tiny: ModelSpec) -> ParseContext:
    """A worker without a bucket that serves the catalogue, the bundled model by default."""
    return context_for(tiny)


def context_for(spec: ModelSpec) -> ParseContext:
    def find_limits(name: str) -> ModelLimits | None:
        found = catalog.find(name)
        return found.limits if found is not None else None

    return ParseContext(
        default_model=lambda: spec.limits,
        find_model=find_limits,
        served_models=tuple(model.id for model in catalog.CATALOG),
        default_response_format="b64_json",
        can_return_urls=False,
    )


@pytest.fixture(scope="session")
def warm() -> Iterator[tuple[FluxModelManager, GpuThread]]:
    """The bundled model and the thread it runs on; loaded by the first test that needs it."""
    gpu = GpuThread()
    yield build_models(Settings.from_environment({})), gpu
    gpu.close()


@pytest.fixture
async def worker(warm: tuple[FluxModelManager, GpuThread], tmp_path: Path) -> AsyncIterator[Worker]:
    """A worker as on a platform without a bucket, with a cache of its own and the model that all tests share."""
    settings = Settings.from_environment({"MODEL_VOLUME": str(tmp_path / "volume")})
    models, gpu = warm
    made = build_worker(settings, is_local=False, cache_folder=tmp_path / "cache", models=models, gpu=gpu)
    yield made
    await made.close()
