"""The forms of `loras[].path`."""

from __future__ import annotations

import base64

import pytest

from flux_engine.errors import InvalidInput
from flux_engine.inputs.lora_source import (
    CivitaiLora,
    HubLora,
    InlineLora,
    LoraSource,
    UrlLora,
    VolumeLora,
    parse_source,
)

CONTENT = bytes(range(256)) * 3
TEXT = base64.b64encode(CONTENT).decode()
MAX = 1000


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("sepia", VolumeLora("sepia.safetensors")),
        ("sepia.safetensors", VolumeLora("sepia.safetensors")),
        ("my_Style-2.0", VolumeLora("my_Style-2.0.safetensors")),
        ("owner/repo", HubLora("owner/repo", None, None)),
        ("owner/repo@v1.0", HubLora("owner/repo", "v1.0", None)),
        ("owner/repo@refs/pr/2", HubLora("owner/repo", "refs/pr/2", None)),
        ("owner/repo:x.safetensors", HubLora("owner/repo", None, "x.safetensors")),
        ("owner/repo@main:sub dir/x (1).safetensors", HubLora("owner/repo", "main", "sub dir/x (1).safetensors")),
        ("FLUX/mosaic.safetensors", VolumeLora("FLUX/mosaic.safetensors")),
        ("my loras/style v2.safetensors", VolumeLora("my loras/style v2.safetensors")),
        ("my loras/style v2", VolumeLora("my loras/style v2.safetensors")),
        ("Mosaic Style v2 (final)", VolumeLora("Mosaic Style v2 (final).safetensors")),
        ("mosaic+stone's & more [1], 50%!", VolumeLora("mosaic+stone's & more [1], 50%!.safetensors")),
        ("\u00fcn\u00ef", VolumeLora("\u00fcn\u00ef.safetensors")),
        ("\u98a8\u666f/\u7d75 2.safetensors", VolumeLora("\u98a8\u666f/\u7d75 2.safetensors")),
        ("a/b/c", VolumeLora("a/b/c.safetensors")),
        ("a@b", VolumeLora("a@b.safetensors")),
        ("https://huggingface.co/owner/repo", HubLora("owner/repo", None, None)),
        ("https://hf.co/owner/repo/", HubLora("owner/repo", None, None)),
        ("https://huggingface.co/owner/repo/tree/main", HubLora("owner/repo", "main", None)),
        ("https://huggingface.co/owner/repo/tree/refs%2Fpr%2F2", HubLora("owner/repo", "refs/pr/2", None)),
        ("https://huggingface.co/owner/repo/tree/main/flux/v2", HubLora("owner/repo", "main", None, "flux/v2")),
        ("https://huggingface.co/o/r/tree/refs%2Fpr%2F2/my%20loras/", HubLora("o/r", "refs/pr/2", None, "my loras")),
        ("https://huggingface.co/o/r/tree/refs/pr/2/x", HubLora("o/r", "refs/pr/2", None, "x")),
        ("huggingface.co/owner/repo", HubLora("owner/repo", None, None)),
        ("hf://owner/repo/sub/x.safetensors", HubLora("owner/repo", None, "sub/x.safetensors")),
        ("hf://owner/repo@refs%2Fpr%2F2/x.safetensors", HubLora("owner/repo", "refs/pr/2", "x.safetensors")),
        ("hf:owner/repo", HubLora("owner/repo", None, None)),
        ("owner/repo:[FLUX] \u98a8's, v2.safetensors", HubLora("owner/repo", None, "[FLUX] \u98a8's, v2.safetensors")),
        ("owner/repo:X.SafeTensors", HubLora("owner/repo", None, "X.SafeTensors")),
        ("Style.SAFETENSORS", VolumeLora("Style.SAFETENSORS")),
        ("[FLUX] style", VolumeLora("[FLUX] style.safetensors")),
        ("_style", VolumeLora("_style.safetensors")),
        ("\U0001f525/(new) @me", VolumeLora("\U0001f525/(new) @me.safetensors")),
        (
            "https://huggingface.co/o/r/blob/main/a b.safetensors",
            UrlLora("https://huggingface.co/o/r/resolve/main/a b.safetensors"),
        ),
        (
            "https://huggingface.co/o/r/resolve/main/x.safetensors",
            UrlLora("https://huggingface.co/o/r/resolve/main/x.safetensors"),
        ),
        ("https://huggingface.co/datasets/owner", UrlLora("https://huggingface.co/datasets/owner")),
        ("civitai:691639", CivitaiLora(691639)),
        ("civitai:691639?fileId=3", CivitaiLora(691639, "fileId=3")),
        ("urn:air:flux1:lora:civitai:618692@691639", CivitaiLora(691639)),
        ("urn:air:flux2:lora:Civitai:618692@691639", CivitaiLora(691639)),
        ("urn:air:flux1:lora:civitai:618692@691639.safetensors", CivitaiLora(691639)),
        ("air:flux1:locon:civitai:618692@691639", CivitaiLora(691639)),
        ("civitai.com/models/618692?modelVersionId=691639", CivitaiLora(691639)),
        ("https://civitai.com/model-versions/691639", CivitaiLora(691639)),
        ("https://civitai.com/api/v1/model-versions/691639", CivitaiLora(691639)),
        ("CIVITAI:691639", CivitaiLora(691639)),
        ("civitai:618692@691639", CivitaiLora(691639)),
        ("https://civitai.com/models/618692?modelVersionId=691639", CivitaiLora(691639)),
        ("https://civitai.com/models/618692/flux?x=1&modelVersionId=691639#top", CivitaiLora(691639)),
        ("https://civitai.com/api/download/models/691639", CivitaiLora(691639)),
        (
            "https://civitai.com/api/download/models/691639?type=Model&format=SafeTensor",
            CivitaiLora(691639, "type=Model&format=SafeTensor"),
        ),
        ("https://example.com/x.safetensors", UrlLora("https://example.com/x.safetensors")),
        (f"data:application/octet-stream;base64,{TEXT}", InlineLora(CONTENT)),
        (TEXT, InlineLora(CONTENT)),
    ],
)
def test_what_a_path_means(path: str, source: LoraSource) -> None:
    assert parse_source(path, max_inline_bytes=MAX) == source


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "it must be"),
        ("../secret", "it must be"),
        ("/etc/passwd", "its place in the folder `loras`"),
        ("/runpod-volume/loras/x.safetensors", "its place in the folder `loras`"),
        ("C:\\loras\\x.safetensors", "its place in the folder `loras`"),
        ("~/x.safetensors", "its place in the folder `loras`"),
        ("a/../x", "it must be"),
        ("a/.cache/x", "it must be"),
        ("a//x", "it must be"),
        ("a/ x", "it must be"),
        ("a\\x", "it must be"),
        ("FLUX\\x.safetensors", "write `/` and not"),
        ('"mosaic"', "leave the quotation marks out"),
        ("<lora:mosaic:0.8>", "its number as `scale`"),
        ("mosaic:0.8", "its weight as `scale`"),
        ("urn:air:flux1:checkpoint:civitai:618692@691639", "a version of a LoRA on Civitai"),
        ("a*", "it must be"),
        ("a/b/c/d/e/f/g/h/i", "it must be"),
        (".cache", "it must be"),
        ("owner/..", "it must be"),
        ("owner/repo@../..", "it must be"),
        ("owner/repo:../../x.safetensors", "it must be"),
        ("owner/repo:x.bin", "it must be"),
        ("a\0b", "it must be"),
        ("http://example.com/x.safetensors", "https://"),
        ("file:///etc/passwd", "https://"),
        ("s3://bucket/key", "https://"),
        ("civitai:", "number of a version"),
        ("civitai:abc", "number of a version"),
        ("civitai:²", "number of a version"),
        ("https://civitai.com/models/618692", "number of a Civitai page"),
        ("https://civitai.com/models/618692/flux-sepia", "618692"),
        ("https://civitai.com/user/x", "names no version"),
        ("data:text/plain,hello", "base64"),
        ("data:;base64,!!!!", "it must be"),
        (TEXT[:-3], "broken off"),
        (base64.b64encode(b"x" * 1200).decode(), "more than 1000 bytes"),
        ("x" * 300 + "://", "https://"),
    ],
)
def test_what_no_path_can_be(path: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as refusal:
        parse_source(path, max_inline_bytes=MAX)
    assert refusal.value.field == "loras"
