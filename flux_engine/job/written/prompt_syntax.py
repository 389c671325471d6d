"""Other tools' syntax in a prompt. FLUX reads it as words, so the client is told what to send instead."""

from __future__ import annotations

import json
import re
from typing import Final

from flux_engine.job.fields import MAX_LORAS
from flux_engine.job.validation import shown_name

_TAG: Final = re.compile(
    r"<\s*(?:lora|lyco|hypernet)\s*:([^:<>]{1,120})(?::\s*(-?\d{0,3}(?:\.\d{1,6})?)\s*)?(?::[^<>]{0,80})?>",
    re.IGNORECASE,
)
_WEIGHT: Final = re.compile(
    r"\(([^():]{0,80}[^\W\d][^():]{0,80}):\s*-?\d?\.\d{1,4}\s*\)|\([^()]{1,80}\)\d?\.\d{1,3}\b"
    r"|\([^()]{1,80}\)(?:\+{1,5}|-{2,5})(?!\w)|\(\([^()]{1,200}\)\)|[^\W\d]::-?\d"
)
_BRACES: Final = re.compile(r"\{\{[^{}]{1,200}\}\}|\$\{[^{}]{1,80}\}")
_CHOICE: Final = re.compile(
    r"\{[^{}|\"]{0,200}\|[^{}\"]{0,200}\}|\[[^\[\]|:]{0,80}\|[^\[\]:]{0,80}\]"
    r"|(?<!\w)__[A-Za-z0-9][\w/*-]{0,80}?__(?!\w|\.\w|\()"
)
_BREAK: Final = re.compile(r"(?:(?<=[\s,.])|^)BREAK(?=[\s,.]|$)")
_OPTION: Final = re.compile(
    r"(?:(?<=\s)|^)(?:--(?:ar|aspect|v|version|s|stylize|style|c|chaos|q|quality|no|neg|seed|steps|iw"
    r"|niji|tile|weird|sref|cref)(?![\w-])|\u2014(?:ar|v|niji|stylize|chaos)(?=\s+\d))(?:[\s=]+\d[\w.:]{0,12})?"
)
_NOTES: Final = re.compile(r"\bNegative prompt:|\bSteps: \d{1,4}, Sampler:")
_EMBEDDING: Final = re.compile(r"\bembedding:[\w.-]{1,80}", re.IGNORECASE)
_SCHEDULE: Final = re.compile(r"\[[^\[\]:|]{0,80}:[^\[\]:|]{0,80}:\s*\d?\.?\d{1,3}\]")
_ELSEWHERE: Final = (  # what acts in other tools, and what is said of it here
    (_WEIGHT, "FLUX has no weights; name what matters first and describe it more fully"),
    (_BRACES, "braces weigh nothing here and no template is filled in"),
    (_CHOICE, "nothing is picked here; write the one that is wanted"),
    (_BREAK, "a prompt is one text here, without parts"),
    (_OPTION, "options are fields of the job, such as `aspect_ratio`, `negative_prompt` and `seed`"),
    (_NOTES, "what stands there belongs to fields of the job, such as `negative_prompt` and `num_inference_steps`"),
    (_EMBEDDING, "there is no textual inversion here"),
    (_SCHEDULE, "there is no prompt schedule here"),
)


def syntax_warnings(field: str, prompt: str) -> list[str]:
    """What `prompt` holds that acts elsewhere and not here."""
    warnings = []
    if tags := list(_TAG.finditer(prompt)):
        loras = [{"path": tag[1].strip(), "scale": _scale(tag[2])} for tag in tags[:MAX_LORAS]]
        warnings.append(
            f"`{field}` holds {_quoted(tags[0])}, which is read as words and applies no LoRA; send "
            f'"loras": {json.dumps(loras, ensure_ascii=False)} in place of it'
        )
    for pattern, why in _ELSEWHERE:
        if (found := pattern.search(prompt)) is not None:
            warnings.append(f"`{field}` holds {_quoted(found)}, which is read as words: {why}")
    return warnings


def _scale(text: str | None) -> float:
    try:
        return float(text or 1)
    except ValueError:
        return 1.0


def _quoted(match: re.Match[str]) -> str:
    return f"`{shown_name(match[0])}`"
