"""From process start: to the first look for a job, and to the first picture, against a plain script.

    python -m benchmarks.start

The worker runs as on the platform, against a small server that hands it one job; the plain script imports
diffusers and calls the same pipeline once. They take turns; medians are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from flux_engine.models.weights import BUNDLED_FOLDER

ROOT = Path(__file__).parents[1]
PROMPT = "a large red sun on the left over purple mountains at dusk"
PLAIN = f"""
import torch
from diffusers import FluxPipeline
pipeline = FluxPipeline.from_pretrained({str(BUNDLED_FOLDER)!r}, dtype=torch.float32)
pipeline({PROMPT!r}, width=256, height=256, num_inference_steps=16, guidance_scale=3.5, max_sequence_length=32,
         generator=torch.Generator().manual_seed(7)).images[0].save("plain.png")
"""


class Platform:
    """Hands out one job and notes when it was asked for and when its result came."""

    def __init__(self) -> None:
        self.asked_at: float | None = None
        self.answered = threading.Event()
        self.answered_at = 0.0
        self.result: dict[str, object] = {}
        platform = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if "/job-take/" in self.path and platform.asked_at is None:
                    platform.asked_at = time.perf_counter()
                    self._answer(200, {"id": "job-1", "input": {"prompt": PROMPT, "seed": 7, "cache": False}})
                    return
                if "/job-" in self.path:
                    platform.answered.wait(20)
                self._answer(204, None)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(200, {})
                if body.get("status") != "IN_PROGRESS":
                    platform.answered_at, platform.result = time.perf_counter(), body
                    platform.answered.set()

            def _answer(self, status: int, body: object) -> None:
                data = b"" if body is None else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    first_look, first_picture, plain = [], [], []
    for _ in range(options.rounds):
        look_s, picture_s = worker_round()
        first_look.append(look_s)
        first_picture.append(picture_s)
        plain.append(plain_round())
    print(f"first look for a job   {statistics.median(first_look):6.2f} s")
    print(f"first picture posted   {statistics.median(first_picture):6.2f} s")
    print(f"plain script's picture {statistics.median(plain):6.2f} s")
    print(f"worker / plain         {statistics.median(first_picture) / statistics.median(plain):6.2f}")


def worker_round() -> tuple[float, float]:
    platform = Platform()
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **os.environ, "HOME": home, "OMP_NUM_THREADS": "1",
            "RUNPOD_POD_ID": "worker-1", "RUNPOD_ENDPOINT_ID": "bench",
            "RUNPOD_WEBHOOK_GET_JOB": f"{platform.url}/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{platform.url}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_PING": f"{platform.url}/ping/$RUNPOD_POD_ID?",
            "RUNPOD_PING_INTERVAL": "1000", "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true", "RUNPOD_SKIP_GPU_CHECK": "true",
            "RUNPOD_AI_API_KEY": "bench", "MODEL_VOLUME": home,
        }  # fmt: skip
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-u", "handler.py"], cwd=ROOT, env=environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            if not platform.answered.wait(300) or platform.asked_at is None:
                raise SystemExit("the worker posted no result")
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            platform.server.shutdown()
    if "output" not in platform.result:
        raise SystemExit(f"the job failed: {platform.result}")
    return platform.asked_at - began, platform.answered_at - began


def plain_round() -> float:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-c", PLAIN], cwd=folder, env=environment, check=True, capture_output=True)
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
