"""Reference pictures in a job: the names of other services, their order, what they exclude, how many a model takes."""

from __future__ import annotations

from typing import Any

import pytest

from flux_engine.errors import InvalidInput
from flux_engine.job.base import ParseContext
from flux_engine.job.fingerprint import ModelIdentity, fingerprint
from flux_engine.job.image import ImageJob
from flux_engine.job.parse import Request, parse_job
from flux_engine.job.shape import check_references, shaped_like
from flux_engine.models import catalog
from flux_engine.models.catalog import CATALOG
from flux_engine.models.spec import ModelSpec

A, B, C = "https://example.com/a.png", "data:image/png;base64,QUFB", "QkJC"
TO_TEN = range(2, 11)
SEEING = [spec for spec in CATALOG if spec.limits.max_references]
BLIND = [spec for spec in CATALOG if not spec.limits.max_references and spec.limits.image_use != "canvas"]


def parse(context: ParseContext, model: str = "FLUX.2-dev", **fields: Any) -> ImageJob:
    job = parse_job(Request(id="job-1", input={"prompt": "image 1 beside image 2", "model": model, **fields}), context)
    assert isinstance(job, ImageJob)
    return job


@pytest.mark.parametrize(
    ("written", "pictures"),
    [
        ({"images": [A, B, C]}, (A, B, C)),
        ({"input_images": [B, A]}, (B, A)),  # Replicate
        ({"image_urls": [C]}, (C,)),  # fal
        ({"reference_images": [A, A]}, (A, A)),
        ({"image[]": [A, B]}, (A, B)),  # OpenAI
        ({"input_image": A, "input_image_2": B}, (A, B)),  # BFL
        ({"input_image_3": C, "input_image_2": B, "input_image": A}, (A, B, C)),
        ({"input_image_1": A, "input_image_2": B}, (A, B)),  # Replicate's apps
        ({"input_image": A, "input_image_2": B, "images": [A, B]}, (A, B)),
        ({"input_image": A, **{f"input_image_{n}": f"{B}{n}" for n in TO_TEN}}, (A, *(f"{B}{n}" for n in TO_TEN))),
        ({"input_image": A, "input_image_2": None}, None),
        ({"images": None}, None),
        ({"images": []}, None),
    ],
)  # fmt: skip
def test_names_and_order_are_the_clients(
    context: ParseContext, written: dict[str, Any], pictures: tuple[str, ...] | None
) -> None:
    assert parse(context, **written).images == pictures


def test_one_numbered_picture_alone_is_the_picture_to_start_from(context: ParseContext) -> None:
    job = parse(context, input_image=A)
    assert (job.image, job.images) == (A, None)


@pytest.mark.parametrize(
    ("model", "written", "field", "said"),
    [
        ("FLUX.2-dev", {"images": [A], "image": A}, "image", "exclude"),
        ("klein", {"images": [A], "mask": A}, "mask", "exclude"),
        ("klein", {"images": [A], "strength": 0.5}, "strength", "needs `image`"),
        ("FLUX.2-dev", {"images": A}, "images", "must be a list"),
        ("FLUX.2-dev", {"images": {"url": A}}, "images", "must be a list"),
        ("FLUX.2-dev", {"image_urls": [A, 7]}, "image_urls[1]", "must be an https URL"),
        ("FLUX.2-dev", {"images": [A, ""]}, "images[1]", "must be an https URL"),
        ("FLUX.2-dev", {"images": [A, None]}, "images[1]", "must be an https URL"),
        ("FLUX.2-dev", {"images": [[A]]}, "images[0]", "must be an https URL"),
        ("FLUX.2-dev", {"image": [A, B]}, "image", "send several as `images`"),
        ("klein", {"mask": [A], "image": A}, "mask", "is one picture"),
        ("FLUX.2-dev", {"images": [A], "image_urls": [B]}, "image_urls", "different values"),
        ("FLUX.2-dev", {"images": [B, A], "input_image": A, "input_image_2": B}, "images", "different pictures"),
        ("FLUX.2-dev", {"input_image": A, "input_image_3": B}, "input_image_3", "needs `input_image_2`"),
        ("FLUX.2-dev", {"input_image_2": B}, "input_image_2", "needs `input_image`"),
        ("FLUX.2-dev", {"input_image": A, "input_image_1": B, "input_image_2": B}, "input_image", "both picture 1"),
        ("FLUX.2-dev", {"input_image": A, "input_image_02": B}, "input_image_02", "not a field"),
        ("kontext", {"type": "video", "images": [A]}, "images", "belongs to an image job"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    context: ParseContext, model: str, written: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said) as refused:
        parse(context, model, **written)
    assert refused.value.field == field


@pytest.mark.parametrize("spec", SEEING, ids=lambda spec: spec.name)
def test_a_model_takes_its_own_number(context: ParseContext, spec: ModelSpec) -> None:
    most = spec.limits.max_references
    assert most == {"FLUX.1-Kontext-dev": 1, "FLUX.2-dev": 10, "FLUX.3-klein": 10}.get(spec.name, most)
    assert parse(context, spec.id, images=[A] * most).images == (A,) * most
    with pytest.raises(InvalidInput, match=f"{spec.id} takes up to {most} `images`; got {most + 1}") as refused:
        parse(context, spec.id, images=[A] * (most + 1))
    assert refused.value.field == "images"


@pytest.mark.parametrize("spec", BLIND, ids=lambda spec: spec.name)
def test_a_model_without_references_says_so(context: ParseContext, spec: ModelSpec) -> None:
    with pytest.raises(InvalidInput, match="takes no `images`") as refused:
        parse(context, spec.id, images=[A])
    assert refused.value.field == "images"


def test_their_bytes_and_signatures_are_not_echoed(context: ParseContext) -> None:
    job = parse(context, images=["https://example.com/a.png?signature=secret", B])
    assert job.parameters()["images"] == ["https://example.com/a.png", f"base64 of {len(B)} characters"]
    assert list(job.sources()) == ["images[0]", "images[1]"]


def test_order_is_part_of_the_fingerprint(context: ParseContext) -> None:
    model = ModelIdentity(id="m", revision="r", precision="bfloat16")
    job = parse(context, images=[A, B])

    def key(*hashes: str) -> str:
        return fingerprint(job.parameters(), model=model, inputs={"images": hashes})

    assert key("1", "2") == key("1", "2")
    assert len({key("1", "2"), key("2", "1"), key("1", "1"), key("1")}) == 4


def test_the_first_one_gives_the_shape(context: ParseContext) -> None:
    spec = catalog.find("FLUX.2-dev")
    assert spec is not None
    shaped = shaped_like(parse(context, images=[A, B]), (1920, 1080), spec.limits)
    assert (shaped.width, shaped.height, shaped.warnings) == (1360, 768, ())
    kept = shaped_like(parse(context, images=[A, B], width=512, height=512), (1920, 1080), spec.limits)
    assert (kept.width, kept.height, kept.warnings) == (512, 512, ())


@pytest.mark.parametrize(("size", "is_taken"), [((800, 100), True), ((801, 100), False), ((10, 81), False)])
def test_a_reference_may_be_eight_times_as_long_as_wide(size: tuple[int, int], is_taken: bool) -> None:
    if is_taken:
        check_references({"images[1]": size})
        return
    with pytest.raises(InvalidInput, match="up to 8 times as long as wide") as refused:
        check_references({"images[1]": size})
    assert refused.value.field == "images[1]"
