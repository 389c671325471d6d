"""Plans with quantisation, checkpoint, compilation and step cache, forced on a model that is small enough for a test.

The whole matrix needs a GPU: `make test-gpu`, or on a bare machine, with the wheels of benchmarks/gpu_sections,

    python3 -m pytest -c tests/gpu/bare.ini --noconftest tests/gpu/test_promises.py

The last test runs the same code on a CPU.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch._inductor.config

from flux_engine.models.catalog import FLUX_TINY
from flux_engine.models.planning.device import read_gpu
from flux_engine.models.planning.gpus import cpu_machine
from flux_engine.settings import Quantisation
from flux_engine.units import GIB
from tests.gpu.promises import Bed, check, source_on
from tests.models.larger_flux import LARGER_FLUX, save_larger_flux
from tests.models.tiny_flux import save_random_flux

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU: `make test-gpu`")


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_larger_flux(tmp_path_factory.mktemp("flux-300m"))


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize("is_compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("scheme", ["none", "int8_weight_only", "int8_dynamic", "fp8_tensor", "fp8_dynamic"])
def test_a_forced_plan_is_what_runs(larger: Path, tmp_path: Path, scheme: Quantisation, is_compiled: bool) -> None:
    if scheme.endswith("dynamic") and not is_compiled:
        pytest.skip("dynamic only with compilation")
    gpu = read_gpu()
    if scheme.startswith("fp8") and (not gpu.has_capability(8, 9) or not is_compiled):
        pytest.skip("fp8 from compute capability 8.9, with compilation")
    check(
        Bed(spec=LARGER_FLUX, source=source_on(larger, tmp_path), gpu=gpu, device="cuda", side=512),
        scheme,
        is_compiled=is_compiled,
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch's compiler of torch
@pytest.mark.filterwarnings("ignore:TorchaoLoraLinear was instantiated:UserWarning")
@pytest.mark.filterwarnings("ignore:Int8Tensor does not implement:UserWarning")
def test_the_same_code_on_a_cpu(tmp_path: Path) -> None:
    """A minute of tracing. Inductor leaves the operators to PyTorch: a C++ compiler would take minutes."""
    folder = save_random_flux(tmp_path / "flux")
    machine = cpu_machine(total_bytes=16 * GIB)
    bed = Bed(spec=FLUX_TINY, source=source_on(folder, tmp_path / "volume"), gpu=machine, device="cpu", side=64)
    with torch._inductor.config.patch(torch._inductor.lite_mode_options):
        check(bed, "int8_dynamic", is_compiled=True)
