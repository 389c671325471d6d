"""What torch finds in the environment when it is imported."""

from __future__ import annotations

import os

import pytest

from flux_engine.models.planning.host_cpus import usable_cpus
from flux_engine.models.tuning.libraries import MAX_COMPILE_WORKERS, prepare_libraries

SET = ("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


@pytest.fixture(autouse=True)
def _a_fresh_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SET:
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)


def test_threads_follow_the_containers_share_and_segments_may_grow() -> None:
    prepare_libraries()
    cpus = usable_cpus()
    assert {name: os.environ[name] for name in SET if name in os.environ} == {
        "OMP_NUM_THREADS": str(cpus),
        "TORCHINDUCTOR_COMPILE_THREADS": str(min(cpus, MAX_COMPILE_WORKERS)),
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    }


@pytest.mark.parametrize("name", SET)
def test_what_the_operator_set_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "7")
    prepare_libraries()
    assert os.environ[name] == "7"
    if name == "PYTORCH_CUDA_ALLOC_CONF":
        assert "PYTORCH_ALLOC_CONF" not in os.environ  # torch would take that one
