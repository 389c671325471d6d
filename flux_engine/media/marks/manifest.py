"""C2PA manifests: a signed statement inside the file, which names its ingredients and breaks when a byte changes.

    marker = Manifests(credential, timestamp_url=None, says_prompt=False)
    marker.prove()                                   # once, at start: CredentialFault where nothing can be signed

The C2PA library parses what strangers sent: manifests of ingredients. It fetches nothing for them, and an ingredient
whose manifest it cannot read is named without one. WebM cannot hold a manifest and gets marks alone.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from PIL import Image

from flux_engine import __version__
from flux_engine.job.formats import CONTENT_TYPES, ImageFormat, VideoFormat
from flux_engine.media.marks.credential import Credential, CredentialFault
from flux_engine.media.marks.marker import Marks
from flux_engine.media.marks.statement import TOOL, Ingredient, Statement

PARENT: Final = "image"  # the field of the picture that a job edits; others are looked at
WITHOUT_MANIFEST: Final[tuple[ImageFormat | VideoFormat, ...]] = ("webm",)
NO_MANIFEST: Final = "webm cannot hold a C2PA manifest: the film carries the other marks; for a manifest ask for mp4"
TYPES: Final = ((b"\x89PNG", "image/png"), (b"\xff\xd8", "image/jpeg"), (b"RIFF", "image/webp"), (b"GIF8", "image/gif"))
USES: Final = ("ai_generative_training", "ai_training", "data_mining", "ai_inference")
SETTINGS: Final[dict[str, Any]] = {
    "builder": {"thumbnail": {"enabled": False}},  # of clients' pictures
    "verify": {
        "verify_after_sign": False,  # `prove` has seen that the signer signs
        "remote_manifest_fetch": False,  # an address that a client named
        "ocsp_fetch": False,
    },
}

log = logging.getLogger(__name__)


class Manifests:
    """Marks, and a signed manifest beside them."""

    def __init__(self, credential: Credential, *, timestamp_url: str | None = None, says_prompt: bool = False) -> None:
        self._credential = credential
        self._timestamp_url = timestamp_url
        self._says_prompt = says_prompt
        self._marks = Marks()

    @property
    def id(self) -> str:
        """Workers with keys of their own, each made by itself, count as one signer: none would keep another's files."""
        signer = "own" if self._credential.is_self_made else self._credential.fingerprint
        said = f"{'-timed' if self._timestamp_url else ''}{'-prompt' if self._says_prompt else ''}"
        return f"c2pa-1-{signer}{said}"

    def marked(self, data: bytes, output_format: ImageFormat | VideoFormat, statement: Statement) -> bytes:
        marked = self._marks.marked(data, output_format, statement)
        if output_format in WITHOUT_MANIFEST:
            return marked
        from c2pa import C2paError

        try:
            return self._signed(marked, output_format, statement, self._timestamp_url)
        except C2paError as error:
            if self._timestamp_url is None:
                raise
            log.warning("not time-stamped", extra={"detail": type(error).__name__})  # its text has the server's address
            return self._signed(marked, output_format, statement, None)

    def notes(self, output_format: ImageFormat | VideoFormat) -> tuple[str, ...]:
        return (NO_MANIFEST,) if output_format in WITHOUT_MANIFEST else ()

    def prove(self) -> None:
        """Sign a small picture and read it back. Raises CredentialFault where the library refuses the certificate."""
        from c2pa import C2paError, Reader

        picture = io.BytesIO()
        Image.new("RGB", (16, 16)).save(picture, "PNG")
        statement = Statement(model=TOOL, revision=__version__, is_composite=False)
        try:
            signed = self._signed(picture.getvalue(), "png", statement, None)
            with _context() as context, Reader("image/png", io.BytesIO(signed), context=context) as reader:
                state = reader.get_validation_state()
        except C2paError as error:
            raise CredentialFault(f"C2PA refuses the certificate ({_reason(error)}); {PROFILE}") from None
        if state not in ("Valid", "Trusted"):
            raise CredentialFault(f"what the key signs does not validate; {PROFILE}")

    def _signed(
        self, data: bytes, output_format: ImageFormat | VideoFormat, statement: Statement, timestamp_url: str | None
    ) -> bytes:
        from c2pa import Builder, C2paSignerInfo, Signer

        credential, signed = self._credential, io.BytesIO()
        key = credential.private_key.get_secret_value().encode()
        info = C2paSignerInfo(credential.algorithm, credential.certificates.encode(), key, timestamp_url)
        definition = self._definition(statement)
        with (
            _context() as context,
            Signer.from_info(info) as signer,
            Builder(json.dumps(definition), context=context) as builder,
        ):
            for ingredient in statement.ingredients:
                _add(builder, ingredient)
            builder.sign(signer, CONTENT_TYPES[output_format], io.BytesIO(data), signed)
        return signed.getvalue()

    def _definition(self, statement: Statement) -> dict[str, Any]:
        entries = {f"cawg.{use}": {"use": "notAllowed"} for use in USES}
        return {
            "claim_generator_info": [{"name": TOOL, "version": __version__}],
            "assertions": [
                {"label": "c2pa.actions.v2", "data": {"actions": list(self._actions(statement))}},
                {"label": "cawg.training-mining", "data": {"entries": entries}},
            ],
        }

    def _actions(self, statement: Statement) -> Iterator[dict[str, Any]]:
        fields = [ingredient.field for ingredient in statement.ingredients]
        hashes = {each.field: f"sha256:{each.sha256}" for each in statement.ingredients}
        others = [field for field in fields if field != PARENT]
        action: dict[str, Any] = {
            "action": "c2pa.edited" if PARENT in fields else "c2pa.created",
            "digitalSourceType": statement.source_uri,
            "softwareAgent": {"name": statement.model, "version": statement.revision},
        }
        parameters: dict[str, Any] = {"ingredientIds": others} if others else {}
        if hashes:
            parameters[f"{TOOL}.ingredients"] = hashes
        if self._says_prompt:
            parameters[f"{TOOL}.prompt"] = statement.prompt
        if PARENT in fields:
            yield {"action": "c2pa.opened", "parameters": {"ingredientIds": [PARENT]}}
        yield action | ({"parameters": parameters} if parameters else {})


PROFILE: Final = (
    "it must be for signing (key usage digitalSignature, an extended key usage) and have its issuer's behind it"
)


@contextmanager
def _context() -> Iterator[Any]:
    from c2pa import Context, Settings

    with Settings.from_dict(SETTINGS) as settings, Context(settings) as context:
        yield context


def _add(builder: Any, ingredient: Ingredient) -> None:
    """Name `ingredient`, with what its own manifest says where it has one that can be read."""
    from c2pa import C2paError

    said = {
        "title": ingredient.field,
        "label": ingredient.field,
        "relationship": "parentOf" if ingredient.field == PARENT else "inputTo",
        "instance_id": f"urn:sha256:{ingredient.sha256}",
    }
    kind = next((kind for magic, kind in TYPES if ingredient.data.startswith(magic)), "image/png")
    try:
        builder.add_ingredient(json.dumps(said), kind, io.BytesIO(ingredient.data))
    except C2paError as error:
        log.warning("manifest of an ingredient unreadable", extra={"detail": type(error).__name__})
        blank = io.BytesIO()
        Image.new("RGB", (1, 1)).save(blank, "PNG")  # the library wants a file; what is said of it stays
        builder.add_ingredient(json.dumps(said), "image/png", io.BytesIO(blank.getvalue()))


def _reason(error: Exception) -> str:
    return str(error).replace("\n", " ")[:200]
