"""The real worker whose GPU is lost in the middle of its first picture, which no machine here can show otherwise."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

import handler
from flux_engine.build import build_worker
from flux_engine.generate.gpu import Cancellation, GpuThread, Result
from flux_engine.generate.turns import Turn
from flux_engine.logs import set_up_logs
from flux_engine.settings import Settings


class LostDevice(GpuThread):
    """The GPU thread of a card that has fallen off the bus."""

    async def run(self, work: Callable[[Cancellation], Result], *, turn: Turn | None = None) -> Result:
        def lost(cancellation: Cancellation) -> Result:
            import torch
            from torch import nn

            def fall_off(*_: object) -> None:
                raise torch.AcceleratorError("CUDA error: unspecified launch failure")

            hook = nn.modules.module.register_module_forward_pre_hook(fall_off)
            try:
                return work(cancellation)
            finally:
                hook.remove()

        return await super().run(lost, turn=turn)


if __name__ == "__main__":
    settings = Settings.from_environment(os.environ)
    set_up_logs(settings.log_level, as_json=True)
    handler.serve(build_worker(settings, is_local=False, gpu=LostDevice()), settings)
