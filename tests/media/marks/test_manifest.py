"""C2PA manifests, read by the C2PA library's own reader: valid, broken by one byte, with their ingredients."""

from __future__ import annotations

import io
import json
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import c2pa
import pytest
from pydantic import SecretStr

from flux_engine.job.formats import CONTENT_TYPES
from flux_engine.media.marks.credential import Credential, CredentialFault, given_credential, kept_credential
from flux_engine.media.marks.manifest import NO_MANIFEST, Manifests
from flux_engine.media.marks.marker import Marks, Stamp, Unmarked
from flux_engine.media.marks.statement import Ingredient
from tests.media.marks.certificates import KEYS, STAMPS, issued, key_pem
from tests.media.marks.samples import SAMPLES, STATEMENT, exiftool, format_of, needs_exiftool, pixels, sample

SIGNED = tuple(name for name in SAMPLES if name != "film.webm")


@pytest.fixture(scope="session")
def credential(tmp_path_factory: pytest.TempPathFactory) -> Credential:
    return kept_credential(tmp_path_factory.mktemp("c2pa"))


def read(data: bytes, name: str) -> dict[str, Any]:
    """What C2PA's reader makes of a file."""
    with c2pa.Reader(CONTENT_TYPES[format_of(name)], io.BytesIO(data)) as reader:
        said: dict[str, Any] = json.loads(reader.json())
    return said


def active(said: dict[str, Any]) -> dict[str, Any]:
    manifest: dict[str, Any] = said["manifests"][said["active_manifest"]]
    return manifest


def actions(said: dict[str, Any]) -> list[dict[str, Any]]:
    found = {assertion["label"]: assertion["data"] for assertion in active(said)["assertions"]}
    made: list[dict[str, Any]] = found["c2pa.actions.v2"]["actions"]
    return made


def failures(said: dict[str, Any]) -> set[str]:
    return {failure["code"] for failure in said["validation_results"]["activeManifest"]["failure"]}


@pytest.mark.parametrize("name", SIGNED)
def test_a_manifest_validates_until_one_byte_changes(name: str, credential: Credential) -> None:
    data = sample(name)
    signed = Stamp(Manifests(credential), STATEMENT).on(data, format_of(name))
    assert pixels(signed, name) == pixels(data, name)
    said = read(signed, name)
    assert (said["validation_state"], failures(said)) == ("Valid", {"signingCredential.untrusted"})
    assert active(said)["claim_generator_info"][0]["name"] == "flux-engine"
    (made,) = actions(said)
    assert made["action"] == "c2pa.created"
    assert made["digitalSourceType"] == STATEMENT.source_uri
    assert made["softwareAgent"] == {"name": STATEMENT.model, "version": STATEMENT.revision}
    assert "training-mining" in json.dumps(said)
    assert "a red sun" not in json.dumps(said)
    changed = bytearray(signed)
    at = signed.index(STATEMENT.source_uri.encode(), len(signed) - 900 if name.endswith("mp4") else 0)
    changed[at] ^= 1  # in the XMP, which the manifest covers like the pixels
    assert read(bytes(changed), name)["validation_state"] == "Invalid"


@pytest.mark.parametrize("name", ["png", "jpg", "webp"])
def test_a_changed_pixel_breaks_it(name: str, credential: Credential) -> None:
    data = sample(name, side=256)
    signed = bytearray(Stamp(Manifests(credential), STATEMENT).on(data, format_of(name)))
    at = len(data) * 3 // 4  # within the compressed pixels, which stand somewhere else now
    signed[signed.index(data[at : at + 16])] ^= 1
    assert "assertion.dataHash.mismatch" in failures(read(bytes(signed), name))


@pytest.mark.parametrize("name", SIGNED)
def test_other_marks_take_its_place(name: str, credential: Credential) -> None:
    data, signs = sample(name), Stamp(Manifests(credential), STATEMENT)
    signed = signs.on(data, format_of(name))
    for marker in (Marks(), Unmarked()):
        bare = Stamp(marker, STATEMENT).again(signed, format_of(name))
        assert pixels(bare, name) == pixels(data, name)
        with pytest.raises(c2pa.C2paError.ManifestNotFound):
            read(bare, name)
        again = signs.again(bare, format_of(name))
        assert read(again, name)["validation_state"] == "Valid"
        assert pixels(again, name) == pixels(data, name)


def test_webm_gets_the_other_marks_and_says_so(credential: Credential) -> None:
    marker = Manifests(credential)
    assert marker.marked(sample("film.webm"), "webm", STATEMENT) == Marks().marked(
        sample("film.webm"), "webm", STATEMENT
    )
    assert (marker.notes("webm"), marker.notes("mp4")) == ((NO_MANIFEST,), ())


@needs_exiftool
@pytest.mark.parametrize("name", ["png", "jpg"])
def test_exiftool_sees_it(name: str, credential: Credential, tmp_path: Path) -> None:
    """The Debian release reads manifests in JPEG and PNG."""
    signed = Stamp(Manifests(credential), STATEMENT).on(sample(name), name)  # type: ignore[arg-type]
    found = exiftool(signed, name, tmp_path)
    assert found["XMP-iptcExt:DigitalSourceType"] == STATEMENT.source_uri
    assert any("c2pa" in str(value) for key, value in found.items() if key.startswith("JUMBF"))


# ------------------------------------------------------------------------------------- ingredients


def edited(credential: Credential, *ingredients: Ingredient) -> dict[str, Any]:
    statement = replace(STATEMENT, is_composite=True, ingredients=ingredients)
    return read(Stamp(Manifests(credential), statement).on(sample("jpg"), "jpg"), "jpg")


def test_an_edited_pictures_own_manifest_stays(credential: Credential) -> None:
    given = Stamp(Manifests(credential), STATEMENT).on(sample("png"), "png")
    said = edited(credential, Ingredient(field="image", data=given))
    assert said["validation_state"] == "Valid"
    opened, made = actions(said)
    assert (opened["action"], made["action"]) == ("c2pa.opened", "c2pa.edited")
    assert made["digitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
    (ingredient,) = active(said)["ingredients"]
    assert ingredient["relationship"] == "parentOf"
    assert ingredient["active_manifest"] == read(given, "png")["active_manifest"]
    assert ingredient["active_manifest"] in said["manifests"]
    assert Ingredient(field="image", data=given).sha256 in json.dumps(made)


def test_pictures_without_one_are_named_by_their_hashes(credential: Credential) -> None:
    given = [Ingredient(field=f"images[{i}]", data=sample(name)) for i, name in enumerate(("png", "jpg", "webp"))]
    said = edited(credential, *given)
    (made,) = actions(said)
    assert made["action"] == "c2pa.created"
    assert [each["relationship"] for each in active(said)["ingredients"]] == ["inputTo"] * 3
    assert [each["instance_id"] for each in active(said)["ingredients"]] == [f"urn:sha256:{g.sha256}" for g in given]
    assert all(each.sha256 in json.dumps(made) for each in given)


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
def test_a_damaged_manifest_of_a_client_ends_nothing(credential: Credential, cut: float) -> None:
    given = bytearray(Stamp(Manifests(credential), STATEMENT).on(sample("png"), "png"))
    start = given.index(b"caBX")
    for at in range(start + 8 + int(3000 * cut), start + 8 + int(3000 * cut) + 40):
        given[at] ^= 0x5A
    said = edited(credential, Ingredient(field="image", data=bytes(given)))
    assert said["validation_state"] == "Valid"
    assert active(said)["ingredients"][0]["title"] == "image"


def test_no_address_of_a_client_is_fetched(credential: Credential) -> None:
    """XMP may name a manifest on a server; the worker must not ask that server."""
    asked: list[str] = []

    class Listening(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with Serving(Listening) as url:
        plain = sample("jpg")
        xmp = (
            b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            b'<rdf:Description rdf:about="" xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="'
            + url.encode()
            + b'/manifest.c2pa"/></rdf:RDF></x:xmpmeta>'
        )
        body = b"http://ns.adobe.com/xap/1.0/\0" + xmp
        given = plain[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2) + body + plain[2:]
        assert edited(credential, Ingredient(field="image", data=given))["validation_state"] == "Valid"
    assert asked == []


def test_the_prompt_is_there_only_where_it_is_asked_for(credential: Credential) -> None:
    statement = replace(STATEMENT, prompt="a secret garden")
    for asked in (False, True):
        said = read(Stamp(Manifests(credential, says_prompt=asked), statement).on(sample("jpg"), "jpg"), "jpg")
        assert ("a secret garden" in json.dumps(said)) is asked


# ------------------------------------------------------------------------------------- certificates


@pytest.mark.parametrize("kind", KEYS)
def test_an_operators_certificate_signs(kind: str) -> None:
    key = KEYS[kind]()
    marker = Manifests(given_credential(issued(key), SecretStr(key_pem(key))))
    marker.prove()
    said = read(Stamp(marker, STATEMENT).on(sample("jpg"), "jpg"), "jpg")
    assert (said["validation_state"], active(said)["signature_info"]["issuer"]) == ("Valid", "A Publisher")


def test_the_same_key_is_kept_and_readable_to_its_owner_alone(tmp_path: Path) -> None:
    first, second = kept_credential(tmp_path), kept_credential(tmp_path)
    assert first == second
    assert first.is_self_made
    (key,) = tmp_path.rglob("private_key.pem")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert first.private_key.get_secret_value() not in repr(first)
    key.write_text("damaged")
    with pytest.raises(CredentialFault, match="damaged"):
        kept_credential(tmp_path)


def test_a_folder_that_cannot_be_written_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "c2pa").write_text("a file")
    with pytest.raises(CredentialFault, match="cannot be kept"):
        kept_credential(tmp_path / "c2pa")


KEY, OTHER = KEYS["es256"](), KEYS["es256"]()


@pytest.mark.parametrize(
    ("certificates", "key", "algorithm", "says"),
    [
        ("no pem", key_pem(KEY), None, "no PEM"),
        (issued(KEY), "no pem", None, "no PEM of a private key"),
        (issued(KEY), key_pem(OTHER), None, "does not belong"),
        (issued(KEY), key_pem(KEY, password=b"secret"), None, "password"),
        (issued(KEY), key_pem(KEY), "ps256", "cannot sign by ps256"),
        (issued(KEY, days=(-30, -1)), key_pem(KEY), None, "not valid today"),
        (issued(KEY, days=(1, 30)), key_pem(KEY), None, "not valid today"),
        (issued(KEY, use=None), key_pem(KEY), None, "C2PA refuses"),
        ("".join(issued(KEY).partition("-----END CERTIFICATE-----\n")[:2]), key_pem(KEY), None, None),
    ],
)
def test_a_broken_certificate_is_refused(certificates: str, key: str, algorithm: Any, says: str | None) -> None:
    if says is None:  # without its issuer's: valid, as many authorities deliver it
        Manifests(given_credential(certificates, SecretStr(key), algorithm)).prove()
        return
    with pytest.raises(CredentialFault, match=says) as fault:
        Manifests(given_credential(certificates, SecretStr(key), algorithm)).prove()
    assert "BEGIN" not in str(fault.value)


# ------------------------------------------------------------------------------------- time


class Serving:
    """An HTTP server on this machine."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        handler.log_message = lambda *_: None  # type: ignore[method-assign]
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> str:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A time-stamping server: openssl's answers over HTTP."""
    folder = tmp_path_factory.mktemp("tsa")
    key = KEYS["ps256"]()
    leaf, root = issued(key, use=STAMPS, is_critical=True).split("-----END CERTIFICATE-----\n")[:2]
    (folder / "leaf.pem").write_text(leaf + "-----END CERTIFICATE-----\n")
    (folder / "root.pem").write_text(root + "-----END CERTIFICATE-----\n")
    (folder / "key.pem").write_text(key_pem(key))
    (folder / "serial").write_text("01\n")
    (folder / "tsa.cnf").write_text(
        f"[tsa]\ndefault_tsa = here\n[here]\nserial = {folder}/serial\nsigner_cert = {folder}/leaf.pem\n"
        f"certs = {folder}/root.pem\nsigner_key = {folder}/key.pem\nsigner_digest = sha256\n"
        "default_policy = 1.2.3.4.1\ndigests = sha256, sha384, sha512\ness_cert_id_alg = sha256\n"
    )

    class Stamping(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            (folder / "query").write_bytes(self.rfile.read(int(self.headers["content-length"])))
            command = ["openssl", "ts", "-reply", "-config", f"{folder}/tsa.cnf", "-queryfile", f"{folder}/query"]
            reply = subprocess.run(command, capture_output=True, check=True).stdout
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

    with Serving(Stamping) as url:
        yield url


def test_a_time_stamp_is_in_the_manifest(credential: Credential, authority: str) -> None:
    said = read(Stamp(Manifests(credential, timestamp_url=authority), STATEMENT).on(sample("jpg"), "jpg"), "jpg")
    assert said["validation_state"] == "Valid"
    assert "time" in active(said)["signature_info"]


def test_a_time_stamping_server_that_is_away_ends_nothing(credential: Credential) -> None:
    marker = Manifests(credential, timestamp_url="http://127.0.0.1:9")
    said = read(Stamp(marker, STATEMENT).on(sample("jpg"), "jpg"), "jpg")
    assert said["validation_state"] == "Valid"
    assert "time" not in active(said)["signature_info"]
