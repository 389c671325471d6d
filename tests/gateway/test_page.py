"""docs/gateway.md: its examples run as they stand, and its code verifies our signatures and no others."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import pytest
from standardwebhooks import Webhook

from flux_engine.gateway.webhooks.signature import secret_of, signed_headers
from tests.gateway.world import World

PAGE: Final = Path(__file__).parents[2] / "docs" / "gateway.md"
BLOCK: Final = re.compile(r"<!-- (test|verify):(\w+) -->\n```\w+\n(.*?)```", re.DOTALL)
BLOCKS: Final = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
EXAMPLES: Final = [(language, text) for kind, language, text in BLOCKS if kind == "test"]
VERIFY: Final = {language: text for kind, language, text in BLOCKS if kind == "verify"}
RUN: Final = {
    "sh": ["bash", "-e", "-u", "-o", "pipefail", "-c"],
    "python": [sys.executable, "-c"],
    "javascript": ["node", "--input-type=module", "-e"],
}
needs_node: Final = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed: apt install nodejs")
needs_curl: Final = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed: apt install curl")
MARKS: Final = {"sh": [needs_curl], "javascript": [needs_node]}


def _marked(examples: list[tuple[str, str]]) -> list[Any]:
    numbered = [(f"{language}-{number}", language, text) for number, (language, text) in enumerate(examples)]
    return [pytest.param(kind, text, marks=MARKS.get(kind, []), id=name) for name, kind, text in numbered]


@pytest.mark.parametrize(("language", "text"), _marked(EXAMPLES))
async def test_an_example_runs(language: str, text: str, gw: World, tmp_path: Path) -> None:
    environment = os.environ | {"GATEWAY": gw.url, "KEY": gw.headers["Authorization"].removeprefix("Bearer ")}
    working = asyncio.create_task(gw.hand.work())
    process = await asyncio.create_subprocess_exec(
        *RUN[language], text, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, errors = await process.communicate()
    working.cancel()
    assert process.returncode == 0, output.decode() + errors.decode()
    if language != "sh":
        assert re.fullmatch(rb"completed \d+ bytes\n", output)
    if (tmp_path / "task.json").exists():
        assert json.loads((tmp_path / "task.json").read_text())["status"] == "completed"
        assert (tmp_path / "sun.png").read_bytes().startswith(b"\x89PNG")


SECRET: Final = secret_of("ada", b"g" * 32)
BODY: Final = '{"type":"task.completed","data":{"prompt":"größer"}}'.encode()


def cases() -> dict[str, tuple[dict[str, str], bytes, bool]]:
    now = int(time.time())
    good = signed_headers(SECRET, message_id="msg_1", timestamp=now, body=BODY)
    old = signed_headers(SECRET, message_id="msg_1", timestamp=now - 600, body=BODY)
    other = signed_headers(secret_of("eve", b"g" * 32), message_id="msg_1", timestamp=now, body=BODY)
    signature = good["webhook-signature"]
    return {
        "good": (good, BODY, True),
        "beside an older signature": (good | {"webhook-signature": f"v1,AAAA {signature}"}, BODY, True),
        "another body": (good, BODY + b" ", False),
        "another id": (good | {"webhook-id": "msg_2"}, BODY, False),
        "another time": (good | {"webhook-timestamp": str(now - 1)}, BODY, False),
        "old": (old, BODY, False),
        "another secret": (other, BODY, False),
        "another version": (good | {"webhook-signature": signature.replace("v1,", "v2,")}, BODY, False),
        "a time that is no number": (good | {"webhook-timestamp": "²"}, BODY, False),
        "a signature in other letters": (good | {"webhook-signature": "v1,größer"}, BODY, False),
        "no signature": (good | {"webhook-signature": ""}, BODY, False),
        "no headers": ({}, BODY, False),
    }


def test_the_python_code_verifies_what_the_library_does() -> None:
    names: dict[str, Any] = {}
    exec(VERIFY["python"], names)
    for name, (headers, body, is_good) in cases().items():
        assert names["is_genuine"](SECRET, headers, body) == is_good, name
    headers, body, _ = cases()["good"]
    assert Webhook(SECRET).verify(body, headers)["type"] == "task.completed"


@needs_node
def test_the_javascript_code_does_too() -> None:
    given = [[headers, body.decode(), is_good] for headers, body, is_good in cases().values()]
    program = f"""{VERIFY["javascript"]}
for (const [headers, body, isGood] of {json.dumps(given)}) {{
  if (isGenuine({json.dumps(SECRET)}, headers, Buffer.from(body)) !== isGood) throw new Error(JSON.stringify(headers));
}}
console.log("verified");"""
    ran = subprocess.run([*RUN["javascript"], program], capture_output=True, text=True, check=False)
    assert ran.stdout == "verified\n", ran.stderr
