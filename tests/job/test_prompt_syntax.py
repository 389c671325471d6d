"""Other tools' syntax in a prompt is named in a warning, with what to send; ordinary prose is not."""

from __future__ import annotations

import time

import pytest

from flux_engine.job.base import ParseContext
from flux_engine.job.parse import Request, parse_job
from flux_engine.job.written.prompt_syntax import syntax_warnings


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a sun <lora:mosaic:0.8>", '"loras": [{"path": "mosaic", "scale": 0.8}]'),
        ("<lora:Mosaic Style v2>", '[{"path": "Mosaic Style v2", "scale": 1.0}]'),
        ("<LORA:a:1> <lora:b:-0.5:x>", '[{"path": "a", "scale": 1.0}, {"path": "b", "scale": -0.5}]'),
        ("<lyco:a:.7>", '"scale": 0.7'),
        ("a (red:1.3) sun", "`(red:1.3)`"),
        ("a (very red, large:0.75) sun", "FLUX has no weights"),
        ("a (red sun)1.2", "FLUX has no weights"),
        ("embedding:badhands, a sun", "no textual inversion"),
        ("a [moon:sun:0.5] over a lake", "no prompt schedule"),
        ("< lora: mosaic : 0.8 >", '[{"path": "mosaic", "scale": 0.8}]'),
        ("a (red sun: 1.3 ) over a lake", "FLUX has no weights"),
        ("a (red sun)++ over a lake", "`(red sun)++`"),
        ("((masterpiece)), a sun", "`((masterpiece))`"),
        ("a sun::2 a moon::1", "FLUX has no weights"),
        ("{{best quality}}, a sun", "braces weigh nothing"),
        ("a picture of {{ subject }}", "no template is filled in"),
        ("a picture of ${subject}", "no template is filled in"),
        ("a {red|blue} sun", "`{red|blue}`, which is read as words: nothing is picked"),
        ("a {2$$red|blue|green} sun", "nothing is picked"),
        ("a [cow|horse] in a field", "`[cow|horse]`"),
        ("a __colour/warm__ sun", "`__colour/warm__`"),
        ("a red sun BREAK a white moon", "without parts"),
        ("a red sun over a lake --ar 16:9 --v 6", "`--ar 16:9`, which is read as words: options are fields"),
        ("a red sun --no clouds", "`negative_prompt`"),
        ("a red sun \u2014ar 3:2", "`aspect_ratio`"),
        ("a sun Negative prompt: trees Steps: 20, Sampler: Euler a, CFG scale: 7", "belongs to fields"),
    ],
)
def test_syntax_of_other_tools_is_named(prompt: str, said: str) -> None:
    (warning,) = syntax_warnings("prompt", prompt)
    assert said in warning
    assert warning.startswith("`prompt` holds")


@pytest.mark.parametrize(
    "prompt",
    [
        "a red sun (large) over a lake",
        "a format of (16:9), at 12:30",
        "a sign that says (page 3:2)",
        "<html> a < b > c",
        "[a list] of things: one, two",
        "(nested (round) brackets)",
        "a smiley :) and 1.3 metres",
        'a sign that says "BREAK", a breakfast, Breaking waves',
        "a red sun -- no clouds -- over a lake",
        "the sun \u2014 no moon \u2014 over a lake",
        "a well--lit room, hand-made, --- and a __ blank",
        '{"scene": "a lake", "colours": "red | blue", "camera": {"lens": "85mm"}}',
        "a file called __init__.py",
        "C++ and a [framed] photo | red, at 12::30",
        "a price of $5 or {5}",
    ],
)
def test_prose_is_no_syntax(prompt: str) -> None:
    assert syntax_warnings("prompt", prompt) == []


def test_every_prompt_of_a_job_is_looked_at(context: ParseContext) -> None:
    fields = {
        "negative_prompt": "(blurry:1.4)",
        "keyframes": {"0": "a <lora:a:1>", "4": "b <lora:b:1>"},
        "num_frames": 6,
    }
    job = parse_job(Request(id="x", input=fields), context)
    for name in ("`prompt`", "`negative_prompt`", "`keyframes[1].prompt`"):
        assert any(warning.startswith(f"{name} holds") for warning in job.warnings), name


@pytest.mark.parametrize(
    "prompt",
    [
        "<lora:" * 600,
        "(" * 4000,
        "(a:" * 1300,
        "[:" * 2000,
        "((a)1" * 800,
        "embedding:" * 400,
        "{a|" * 1300,
        "__a" * 1300,
    ],
)
def test_hostile_prompts_take_no_time(prompt: str) -> None:
    began = time.process_time()
    syntax_warnings("prompt", prompt)
    assert time.process_time() - began < 1
