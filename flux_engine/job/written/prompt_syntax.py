"""Other tools' syntax in a prompt. FLUX reads it as words, so the client is told what to send instead."""

from __future__ import annotations

import json
import re
from typing import Final

from flux_engine.job.fields import MAX_LORAS
from flux_engine.job.validation import shown_name

_TAG: Final = re.compile(
    r"<(?:lora|lyco|hypernet):([^:<>]{1,120})(?::\s*(-?\d{0,3}(?:\.\d{1,6})?))?(?::[^<>]{0,80})?>", re.IGNORECASE
)
_WEIGHT: Final = re.compile(r"\(([^():]{0,80}[^\W\d][^():]{0,80}):\s*-?\d?\.\d{1,4}\)|\([^()]{1,80}\)\d?\.\d{1,3}\b")
_EMBEDDING: Final = re.compile(r"\bembedding:[\w.-]{1,80}", re.IGNORECASE)
_SCHEDULE: Final = re.compile(r"\[[^\[\]:|]{0,80}:[^\[\]:|]{0,80}:\s*\d?\.?\d{1,3}\]")


def syntax_warnings(field: str, prompt: str) -> list[str]:
    """What `prompt` holds that acts elsewhere and not here."""
    warnings = []
    if tags := list(_TAG.finditer(prompt)):
        loras = [{"path": tag[1].strip(), "scale": _scale(tag[2])} for tag in tags[:MAX_LORAS]]
        warnings.append(
            f"`{field}` holds {_quoted(tags[0])}, which is read as words and applies no LoRA; send "
            f'"loras": {json.dumps(loras, ensure_ascii=False)} in place of it'
        )
    if (weight := _WEIGHT.search(prompt)) is not None:
        warnings.append(
            f"`{field}` holds {_quoted(weight)}, which is read as words: FLUX has no weights; name what matters first "
            "and describe it more fully"
        )
    for pattern, what in ((_EMBEDDING, "no textual inversion"), (_SCHEDULE, "no prompt schedule")):
        if (found := pattern.search(prompt)) is not None:
            warnings.append(f"`{field}` holds {_quoted(found)}, which is read as words: there is {what} here")
    return warnings


def _scale(text: str | None) -> float:
    try:
        return float(text or 1)
    except ValueError:
        return 1.0


def _quoted(match: re.Match[str]) -> str:
    return f"`{shown_name(match[0])}`"
