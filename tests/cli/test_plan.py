"""`python -m flux_engine plan`, and the page that is made of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from builder.gpus_table import PAGE, page
from flux_engine.cli.plan import main
from flux_engine.models.planning.plan import PROFILES


def test_a_plan_for_a_card_gives_each_choice_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--gpu", "A10G", "--model", "FLUX.1-dev", "--profile", "speed"]) == 0
    out = capsys.readouterr().out
    assert "FLUX.1-dev on NVIDIA A10G, profile speed" in out
    for word in (
        "int8_dynamic",
        "compile",
        "step_cache",
        "peak on the device",
        "an estimate",
        "next best",
        "cold start",
    ):
        assert word in out


def test_json_is_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--gpu", "l4", "--model", "klein", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["model"] == "FLUX.2-klein-4B"
    assert plan["fits"] is True
    assert {part["component"] for part in plan["parts"]} == {"transformer", "text_encoder", "vae"}


def test_this_machine_is_a_gpu_or_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "flux-tiny"]) == 0
    assert "flux-tiny on " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        (["--offload", "model"], {"offload": "model"}),
        (["--no-compile", "--quantisation", "int8_weight_only"], {"compile": False, "lora_mode": "adapters"}),
        (["--no-step-cache"], {"step_cache_threshold": None}),
        (["--steps", "8"], {"step_cache_threshold": None}),
        (["--no-step-cache", "--max-batch", "2"], {"largest_batch": 2}),
    ],
)
def test_a_wish_is_followed(wishes: list[str], expected: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    main(["--gpu", "L40S", "--model", "FLUX.1-dev", "--json", *wishes])
    plan = json.loads(capsys.readouterr().out)
    assert {name: plan[name] for name in expected} == expected


def test_a_wish_that_a_rule_forbids_is_declined_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--gpu", "A40", "--quantisation", "fp8_dynamic", "--offload", "balanced", "--attention-slicing"])
    out = capsys.readouterr().out
    for words in ("declined_quantisation", "declined_offload", "FLUX has no sliced attention"):
        assert words in out


@pytest.mark.parametrize(("written", "gpu"), [("A100 40GB", "NVIDIA A100-SXM4-40GB"), ("a10", "NVIDIA A10")])
def test_a_card_is_named_loosely(written: str, gpu: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--gpu", written, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gpu"] == gpu


def test_references_have_their_price(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--gpu", "L40S", "--model", "klein-4B"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "with 4 references" in line)
    seconds, gib = (float(figure) for figure in re.findall(r"([0-9.]+) (?:s|GiB)", line))
    assert main(["--gpu", "L40S", "--model", "klein-4B", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert seconds > 2 * plan["seconds"]
    assert gib * 2**30 >= plan["peak_bytes"] * 0.99
    assert main(["--gpu", "L40S", "--model", "FLUX.1-dev"]) == 0
    assert "reference" not in capsys.readouterr().out


def test_profiles_stand_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--gpu", "L40S", "--model", "dev", "--compare", "--price", "0.79"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert len(rows) == 2 + len(PROFILES)
    assert "a picture costs" in rows[0]
    assert all(row.count("|") == rows[0].count("|") for row in rows)
    assert main(["--gpu", "L40S", "--model", "dev", "--compare", "--json"]) == 0
    assert [plan["profile"] for plan in json.loads(capsys.readouterr().out)] == list(PROFILES)


@pytest.mark.parametrize(
    ("arguments", "environment", "is_priced"),
    [
        (["--price", "3.6"], {}, True),
        ([], {"GPU_PRICE_PER_HOUR": "3.6"}, True),
        ([], {"GPU_PRICE_PER_HOUR": "much"}, False),
        ([], {}, False),
    ],
)
def test_a_picture_has_its_price_where_the_card_has_one(
    arguments: list[str],
    environment: dict[str, str],
    is_priced: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GPU_PRICE_PER_HOUR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    main(["--gpu", "H100 80GB HBM3", "--model", "dev", "--quantisation", "none", "--no-step-cache", *arguments])
    assert ("$0.0040 a warm image at $3.6 an hour" in capsys.readouterr().out) is is_priced  # 4.0 s


def test_the_table_has_every_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--all", "--profile", "memory"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + 24


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--gpu", "GTX 970"], "no such card; one of T4"),
        (["--gpu", "RTX 4099"], "did you mean RTX 4090"),
        (["--gpu", "A100"], "A100 may be any of A100-SXM4-40GB, A100 80GB PCIe; name one"),
        (["--gpu", "L4", "--model", "SDXL"], "no such model; one of"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err


def test_the_plan_of_a_card_needs_no_torch() -> None:
    code = (
        "import sys; from flux_engine.cli.generate import main; "
        "main(['plan', '--gpu', 'L4']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_the_page_of_gpus_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"
