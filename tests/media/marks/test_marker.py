"""Marks in every format: read by tools that are not ours, gone without a trace, and no pixel changed."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from flux_engine.media.encode import made_from_of, preview_data_uri
from flux_engine.media.marks.marker import Marks, Stamp, Unmarked
from flux_engine.media.marks.statement import VOCABULARY
from tests.media.marks.samples import (
    SAMPLES,
    STATEMENT,
    exiftool,
    ffprobe,
    format_of,
    needs_exiftool,
    needs_ffprobe,
    pixels,
    sample,
)

STAMP = Stamp(Marks(), STATEMENT)
COMPOSITE = Stamp(Marks(), replace(STATEMENT, is_composite=True))
BARE = Stamp(Unmarked(), STATEMENT)


@pytest.mark.parametrize("name", SAMPLES)
def test_marks_change_no_pixel_and_go_without_a_trace(name: str) -> None:
    data = sample(name)
    marked = STAMP.on(data, format_of(name))
    assert marked != data
    assert len(pixels(data, name)) > 0
    assert pixels(marked, name) == pixels(data, name)
    assert COMPOSITE.again(marked, format_of(name)) == COMPOSITE.on(data, format_of(name))
    assert STAMP.again(marked, format_of(name)) == marked == STAMP.on(data, format_of(name))
    without = BARE.again(marked, format_of(name))
    assert VOCABULARY.encode() not in without
    assert pixels(without, name) == pixels(data, name)


@needs_exiftool
@pytest.mark.parametrize("name", SAMPLES)
def test_exiftool_reads_them(name: str, tmp_path: Path) -> None:
    group = "Matroska" if name.endswith("webm") else "XMP-iptcExt"
    system = f"{group}:{'AiSystemUsed' if name.endswith('webm') else 'AISystemUsed'}"
    for stamp, source_type in (
        (STAMP, "trainedAlgorithmicMedia"),
        (COMPOSITE, "compositeWithTrainedAlgorithmicMedia"),
    ):
        read = exiftool(stamp.on(sample(name), format_of(name)), name, tmp_path)
        assert read[f"{group}:DigitalSourceType"] == VOCABULARY + source_type
        assert read[system] == STATEMENT.model
        assert not [key for key in read if key.endswith((":Warning", ":Error"))]
    read = exiftool(BARE.again(STAMP.on(sample(name), format_of(name)), format_of(name)), name, tmp_path)
    assert not [key for key in read if "DigitalSourceType" in key or key.endswith((":Warning", ":Error"))]


@needs_ffprobe
@pytest.mark.parametrize(("name", "tag"), [("film.mp4", "XMP"), ("film.webm", "DIGITAL_SOURCE_TYPE")])
def test_ffprobe_reads_them(name: str, tag: str, tmp_path: Path) -> None:
    tags = ffprobe(STAMP.on(sample(name), format_of(name)), name, tmp_path)
    assert STATEMENT.source_uri in tags[tag]
    assert tags["TITLE"] == "a red sun"
    assert "AI-generated" in tags["COMMENT"]


def test_the_record_of_a_picture_stays_beside_them() -> None:
    def record(data: bytes) -> object:
        return made_from_of(Image.open(io.BytesIO(data)))

    plain = sample("png")
    assert record(STAMP.on(plain, "png")) == record(plain)


def test_a_preview_carries_them_too() -> None:
    picture = Image.new("RGB", (512, 256), "red")
    for stamp, is_marked in ((STAMP, True), (BARE, False)):
        data = base64.b64decode(preview_data_uri(picture, xmp=stamp.preview_xmp()).partition(",")[2])
        assert (STATEMENT.source_uri.encode() in data) is is_marked
