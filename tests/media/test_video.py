"""Every format decoded again by ffmpeg and Pillow, and an encoder that dies, stalls, or is left half way."""

from __future__ import annotations

import io
import math
import os
import re
import resource
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image, ImageSequence

from flux_engine.errors import JobCancelled
from flux_engine.job.formats import VIDEO_FORMATS, VideoFormat
from flux_engine.media.video import EncoderFailed, Frame, VideoEncoder, VideoSpec, thumbnail

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
WIDTH, HEIGHT = 128, 96


def sun_moving_right(count: int) -> Iterator[Frame]:
    """A red disc that goes from 20 pixels left to 20 pixels right, over a gradient."""
    return (_sun_at(20 + (WIDTH - 40) * i / (count - 1)) for i in range(count))


def sun_there_and_back(count: int) -> Iterator[Frame]:
    """From the left to the right and on the way back, so that the next frame would be the first."""
    return (_sun_at(WIDTH / 2 - (WIDTH / 2 - 20) * math.cos(2 * math.pi * i / count)) for i in range(count))


def _sun_at(centre: float) -> Frame:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    frame[..., 1], frame[..., 2] = x * 120 // WIDTH, y * 200 // HEIGHT
    frame[(x - centre) ** 2 + (y - HEIGHT / 2) ** 2 < 14**2] = (255, 40, 0)
    return frame


def a_spec(
    output_format: VideoFormat = "mp4", *, num_frames: int = 12, frames_made: int | None = None, **more: object
) -> VideoSpec:
    values = {"width": WIDTH, "height": HEIGHT, "fps": 24.0, **more}
    return VideoSpec(
        output_format=output_format,
        num_frames=num_frames,
        frames_made=frames_made or num_frames,
        **values,  # type: ignore[arg-type]
    )


def encoded(spec: VideoSpec, at_frame: Callable[[VideoEncoder, int], None] | None = None, **options: object) -> bytes:
    """A whole video; `at_frame` may do harm before each frame."""
    with VideoEncoder(spec, **options) as encoder:  # type: ignore[arg-type]
        sun = sun_there_and_back if spec.is_loop else sun_moving_right
        for i, frame in enumerate(sun(spec.frames_made)):
            if at_frame is not None:
                at_frame(encoder, i)
            encoder.write(frame)
        return encoder.finish()


def decoded(data: bytes, folder: Path) -> tuple[np.ndarray, str]:
    """Frames (n, height, width, 3) as ffmpeg's decoders see them, and what it says of the file."""
    path = folder / "video"
    path.write_bytes(data)
    raw = subprocess.run(
        [FFMPEG, "-v", "error", "-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        capture_output=True,
        check=True,
    )
    assert raw.stderr == b""
    said = subprocess.run([FFMPEG, "-hide_banner", "-i", path], capture_output=True, text=True, check=False).stderr
    return np.frombuffer(raw.stdout, np.uint8).reshape(-1, HEIGHT, WIDTH, 3), said


def suns(frames: np.ndarray) -> list[float]:
    """Where the red disc's centre is in each frame, in pixels from the left."""
    red = (frames[..., 0].astype(int) - frames[..., 2]) > 90
    return [float(np.nonzero(mask)[1].mean()) for mask in red]


@pytest.mark.parametrize("output_format", VIDEO_FORMATS)
@pytest.mark.parametrize(
    ("num_frames", "frames_made", "fps", "is_loop"),
    [(12, 12, 24.0, False), (25, 9, 24.0, False), (24, 12, 12.5, True), (2, 2, 1.0, False)],
)
def test_has_its_frames_and_rate_in_every_format(
    tmp_path: Path, output_format: VideoFormat, num_frames: int, frames_made: int, fps: float, is_loop: bool
) -> None:
    spec = a_spec(output_format, num_frames=num_frames, frames_made=frames_made, fps=fps, is_loop=is_loop)
    data = encoded(spec)
    frames, said = decoded(data, tmp_path)

    assert len(frames) == num_frames
    assert _seconds(data, output_format, said) == pytest.approx(num_frames / fps, abs=0.011)
    assert "128x96" in said
    places = suns(frames)
    assert places[0] == pytest.approx(20, abs=2)
    if is_loop:  # back at the first but for one step
        assert max(places) == pytest.approx(WIDTH - 20, abs=2)
        assert places[-1] == pytest.approx(places[1], abs=2)
    else:
        assert places[-1] == pytest.approx(WIDTH - 20, abs=2)
        assert all(after > before - 0.6 for before, after in pairwise(places))


@pytest.mark.parametrize(
    ("output_format", "codec", "pixels"),
    [
        ("mp4", "h264", "yuv420p(tv, bt709"),
        ("webm", "vp9", "yuv420p(tv, bt709"),
        ("gif", "gif", "bgra"),
        ("webp", "webp", "argb"),
    ],
)
def test_is_what_players_expect(tmp_path: Path, output_format: VideoFormat, codec: str, pixels: str) -> None:
    _, said = decoded(encoded(a_spec(output_format)), tmp_path)

    assert re.search(rf"Video: {codec}.*{re.escape(pixels)}", said), said
    assert "24 fps" in said or output_format in ("gif", "webp")


@pytest.mark.parametrize("output_format", VIDEO_FORMATS)
def test_colours_come_through(tmp_path: Path, output_format: VideoFormat) -> None:
    spec = a_spec(output_format, num_frames=2, quality=95)
    colours = [(200, 30, 30), (30, 160, 40), (20, 40, 200), (128, 128, 128)]
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for i, colour in enumerate(colours):
        frame[:, i * 32 : (i + 1) * 32] = colour
    with VideoEncoder(spec) as encoder:
        encoder.write(frame)
        encoder.write(frame)
        frames, _ = decoded(encoder.finish(), tmp_path)

    for i, colour in enumerate(colours):
        assert frames[-1, 48, i * 32 + 16] == pytest.approx(colour, abs=6)


def test_moov_stands_in_front_of_the_pictures() -> None:
    names = [name for name, _ in _boxes(encoded(a_spec("mp4")))]
    assert names.index("moov") < names.index("mdat")


@pytest.mark.parametrize("output_format", ["mp4", "webm"])
def test_says_its_title_and_that_it_was_generated(tmp_path: Path, output_format: VideoFormat) -> None:
    _, said = decoded(encoded(a_spec(output_format, title="sun = red; 'Zürich' -vf x")), tmp_path)
    assert re.search(r"(?i)title\s*: sun = red; 'Zürich' -vf x", said)
    assert re.search(r"(?i)comment\s*: AI-generated", said)


@pytest.mark.parametrize("output_format", ["gif", "webp"])
def test_plays_in_pillow_for_ever(output_format: VideoFormat) -> None:
    image = Image.open(io.BytesIO(encoded(a_spec(output_format))))
    assert (image.size, image.info["loop"]) == ((WIDTH, HEIGHT), 0)
    assert len([frame.copy() for frame in ImageSequence.Iterator(image)]) == 12


@pytest.mark.parametrize("output_format", VIDEO_FORMATS)
def test_quality_costs_bytes_and_bytes_are_the_same_again(output_format: VideoFormat) -> None:
    poor, fair, good = (encoded(a_spec(output_format, quality=quality)) for quality in (1, 50, 100))
    assert len(poor) < len(fair) < len(good)
    assert fair == encoded(a_spec(output_format, quality=50))


def test_thumbnail_is_a_small_webp() -> None:
    image = Image.open(io.BytesIO(thumbnail(np.tile(_sun_at(64), (4, 4, 1)))))
    assert (image.format, image.size) == ("WEBP", (256, 192))


@pytest.mark.parametrize(
    ("width", "frames_made", "said"), [(127, 12, "even"), (128, 13, "cannot be made"), (128, 1, "cannot be made")]
)
def test_refuses_a_video_that_cannot_be(width: int, frames_made: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        a_spec(width=width, frames_made=frames_made)


# ---------------------------------------------------------------------------------------- when it goes wrong


def test_ffmpeg_killed_half_way_is_an_error_and_leaves_nothing() -> None:
    def kill(encoder: VideoEncoder, frame: int) -> None:
        if frame == 5:
            os.kill(encoder.pid, signal.SIGKILL)

    with nothing_left(), pytest.raises(EncoderFailed, match=r"ended early with status -9, after [0-9]+ frames"):
        encoded(a_spec(num_frames=400), kill)


def test_an_ffmpeg_that_takes_a_while_to_end_says_how_it_ended(tmp_path: Path) -> None:
    slow = tmp_path / "slow-ffmpeg"
    slow.write_text("#!/bin/sh\nexec 0<&-\n/bin/sleep 1.5\nexit 3\n")
    slow.chmod(0o700)
    with pytest.raises(EncoderFailed, match="ended early with status 3"):
        encoded(a_spec(), ffmpeg=str(slow))


def test_aborting_from_another_thread_frees_the_writer() -> None:
    def stop_and_abort_later(encoder: VideoEncoder, frame: int) -> None:
        if frame == 0:
            os.kill(encoder.pid, signal.SIGSTOP)
            threading.Timer(0.3, encoder.abort).start()

    with nothing_left(), pytest.raises(EncoderFailed, match="ended early"):
        encoded(a_spec(num_frames=400), stop_and_abort_later)


def test_an_ffmpeg_that_takes_nothing_is_an_error() -> None:
    with pytest.raises(EncoderFailed, match="has taken nothing"):
        encoded(a_spec(num_frames=400), lambda encoder, _: os.kill(encoder.pid, signal.SIGSTOP), stall_timeout_s=0.3)


@pytest.mark.parametrize("output_format", VIDEO_FORMATS)
def test_no_room_for_the_file_is_an_error(output_format: VideoFormat) -> None:
    with nothing_left(), pytest.raises(EncoderFailed, match="ended"):
        encoded(a_spec(output_format), max_bytes=600)


def test_its_last_words_are_kept() -> None:
    wrong = a_spec()
    object.__setattr__(wrong, "output_format", "nonsense")
    with pytest.raises(EncoderFailed, match="nonsense"):
        encoded(wrong)


def test_too_few_frames_and_wrong_shapes_are_errors() -> None:
    with VideoEncoder(a_spec()) as encoder:
        encoder.write(next(sun_moving_right(2)))
        with pytest.raises(ValueError, match="128"):
            encoder.write(np.zeros((WIDTH, HEIGHT, 3), np.uint8))
        with pytest.raises(EncoderFailed, match="1 frames were written of 12"):
            encoder.finish()


@pytest.mark.parametrize("frames", [0, 1, 7])
def test_leaving_half_way_leaves_nothing_and_the_next_video_is_right(tmp_path: Path, frames: int) -> None:
    def leave(_: VideoEncoder, frame: int) -> None:
        if frame == frames:
            raise JobCancelled

    with nothing_left(), pytest.raises(JobCancelled):
        encoded(a_spec(), leave)
    assert len(decoded(encoded(a_spec()), tmp_path)[0]) == 12


def test_memory_does_not_grow_with_frames_and_no_file_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    peaks = [_peak_of_ffmpeg(count) for count in (48, 480)]
    assert peaks[1] < peaks[0] * 1.25
    assert list(tmp_path.iterdir()) == []


def test_a_slow_encoder_slows_the_writer() -> None:
    """Frames wait with the writer: while ffmpeg stands still only what the pipe and its queue hold is taken."""
    with VideoEncoder(a_spec(num_frames=400), stall_timeout_s=600) as encoder:
        os.kill(encoder.pid, signal.SIGSTOP)
        taken: list[int] = []
        blocked = threading.Thread(target=_write_all, args=(encoder, taken))
        blocked.start()
        time.sleep(0.5)
        assert len(taken) < 60
        os.kill(encoder.pid, signal.SIGCONT)
        blocked.join()
        assert len(taken) == 400
        assert encoder.finish()


def _write_all(encoder: VideoEncoder, taken: list[int]) -> None:
    for i, frame in enumerate(sun_moving_right(400)):
        encoder.write(frame)
        taken.append(i)


def _peak_of_ffmpeg(count: int) -> int:
    """Most resident memory of ffmpeg while it encodes `count` frames, in bytes."""
    with VideoEncoder(a_spec(num_frames=count)) as encoder:
        status = Path(f"/proc/{encoder.pid}/status")
        peak = 0
        for i, frame in enumerate(sun_moving_right(count)):
            encoder.write(frame)
            if i % 8 == 0 and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
                peak = max(peak, int(found[1]) * 1024)
        encoder.finish()
    return peak


@contextmanager
def nothing_left() -> Iterator[None]:
    """No pipe, memory file or child of this process more than before, whatever else goes meanwhile, and no limit."""
    before, limit = _pipes_and_files() | _children(), resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    assert (_pipes_and_files() | _children()) - before == set()
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == limit


def _pipes_and_files() -> set[str]:
    """What VideoEncoder opens: each by a name that is never used twice."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # another thread has closed it
            if (name := str(descriptor.readlink())).startswith(("pipe:", "/memfd:")):
                found.add(f"{name} {descriptor.stat().st_ino}")
    return found


def _children() -> set[str]:
    """Their ids, those that are dead but not waited for included."""
    found = set()
    for listed in Path("/proc/self/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
            found.update(listed.read_text().split())
    return found


def _seconds(data: bytes, output_format: VideoFormat, said: str) -> float:
    if output_format in ("gif", "webp"):
        image = Image.open(io.BytesIO(data))
        milliseconds = 0
        for frame in ImageSequence.Iterator(image):
            frame.load()  # WebP knows a frame's duration only then
            milliseconds += frame.info["duration"]
        return milliseconds / 1000
    found = re.search(r"Duration: (\d+):(\d+):([\d.]+)", said)
    assert found is not None
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])


def _boxes(data: bytes) -> Iterator[tuple[str, int]]:
    at = 0
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        yield name.decode(), size
        at += size
