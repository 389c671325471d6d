"""`make serve` with either queue: a picture by the printed key, and nothing left after Ctrl-C."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.gateway.page.conftest import Served
from tests.servers import free_port

JOB: Final = {"prompt": "a red sun", "width": 64, "height": 64, "num_inference_steps": 1}


@pytest.mark.slow
@pytest.mark.parametrize("queue", ["runpod", "celery"])
def test_a_picture_and_then_nothing_is_left(tmp_path: Path, queue: str) -> None:
    served = Served(tmp_path, free_port(), queue=queue)
    served.start()
    assert served.process is not None
    started = psutil.Process(served.process.pid).children(recursive=True)
    headers = {"Authorization": f"Bearer {served.key}", "Content-Type": "application/json", "Prefer": "wait=60"}
    request = urllib.request.Request(f"{served.url}generate-image", json.dumps(JOB).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["status"] == "completed"
    assert served.stop() == 0
    assert psutil.wait_procs(started, timeout=300)[1] == []
