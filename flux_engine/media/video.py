"""Frames to bytes: a pipe into ffmpeg, which encodes frame n while frame n + 1 is made.

The output goes to a memfd, an anonymous file in memory that ffmpeg opens through `/proc/self/fd`. ffmpeg can seek in
it, so mp4 gets its `moov` moved to the front, and webm and webp get their lengths filled in. It vanishes with its
descriptor: no temporary file is ever left, whatever ends the process. ffmpeg's messages go to a second memfd, so no
thread has to drain them. Linux only.

How frames are made is unknown here.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import select
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flux_engine.job.formats import VideoFormat
from flux_engine.units import GIB

Frame = NDArray[np.uint8]

SOFTWARE: Final = "AI-generated video (flux-engine)"
THUMBNAIL_SIDE: Final = 256
MAX_TITLE_CHARACTERS: Final = 200
MAX_BYTES: Final = GIB  # the finished file is held in memory
MAX_THREADS: Final = 8  # x264 keeps frames for each thread, and a container sees all cores of its host
STALL_TIMEOUT_S: Final = 60.0
FINISH_TIMEOUT_S: Final = 300.0
LOG_BYTES: Final = 2000


class EncoderFailed(Exception):
    """ffmpeg died, stalled or ran out of room. The text has its last lines and is for the log, not for the client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSpec:
    """The frames that are written and the file that results.

    `num_frames` frames of even `width` x `height` pixels play at `fps`. Where `frames_made` is smaller, that many are
    written, evenly spaced from the first to the last, and the rest are motion-interpolated; `is_loop` spaces them from
    the first to the point where it comes round again. `quality` is 1 to 100. mp4 and webm carry `title`.
    """

    width: int
    height: int
    fps: float
    num_frames: int
    frames_made: int
    output_format: VideoFormat
    quality: int = 90
    is_loop: bool = False
    title: str = ""

    def __post_init__(self) -> None:
        if self.width % 2 or self.height % 2 or self.width < 2 or self.height < 2:
            raise ValueError(f"a video's sides must be even; got {self.width}x{self.height}")
        if not 2 <= self.frames_made <= self.num_frames:
            raise ValueError(f"a video of {self.num_frames} frames cannot be made of {self.frames_made}")

    @property
    def is_interpolated(self) -> bool:
        return self.frames_made < self.num_frames

    @property
    def input_rate(self) -> Fraction:
        """Written frames per second."""
        rate = Fraction(self.fps)
        if self.is_interpolated:
            spaces = (
                (self.frames_made, self.num_frames) if self.is_loop else (self.frames_made - 1, self.num_frames - 1)
            )
            rate *= Fraction(*spaces)
        return rate.limit_denominator(1001)


class VideoEncoder:
    """Encodes frames as they come.

        with VideoEncoder(spec) as encoder:
            for frame in frames:
                encoder.write(frame)
            data = encoder.finish()

    One thread uses it, except for `abort`, which any thread may call. Leaving the block ends ffmpeg and frees its
    memory, also after an error.
    """

    def __init__(
        self,
        spec: VideoSpec,
        *,
        ffmpeg: str | None = None,
        max_bytes: int = MAX_BYTES,
        stall_timeout_s: float = STALL_TIMEOUT_S,
    ) -> None:
        self.spec: Final = spec
        self._ffmpeg = ffmpeg
        self._max_bytes = max_bytes
        self._stall_timeout_s = stall_timeout_s
        self._opened = contextlib.ExitStack()
        self._first: Frame | None = None
        self._written = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opening:
            self._output = _memory_file("video", opening)
            self._log = _memory_file("log", opening)
            reading, writing = os.pipe()
            self._input = opening.enter_context(open(writing, "wb", buffering=0))
            with open(reading, "rb", buffering=0) as frames:
                self._process = subprocess.Popen(  # noqa: S603  numbers and a title that follows `title=`
                    _command(self._ffmpeg or _bundled_ffmpeg(), self.spec, self._output),
                    stdin=frames,
                    stdout=subprocess.DEVNULL,
                    stderr=self._log,
                    pass_fds=(self._output,),
                    env={},  # the worker's own has secrets
                )
            opening.callback(_end, self._process)
            resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (self._max_bytes, self._max_bytes))
            os.set_blocking(writing, False)
            self._opened = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def write(self, frame: Frame) -> None:
        """Hand over the next frame, uint8 (height, width, 3) in RGB; waits while ffmpeg is behind.

        Raises EncoderFailed, and ValueError for a frame of another shape.
        """
        if frame.dtype != np.uint8 or frame.shape != (self.spec.height, self.spec.width, 3):
            raise ValueError(f"a frame must be uint8 {self.spec.height}x{self.spec.width}x3; got {frame.shape}")
        if self._first is None and self.spec.is_interpolated and self.spec.is_loop:
            self._first = frame.copy()
        self._send(frame)
        self._written += 1

    def finish(self) -> bytes:
        """The finished file, after the last frame. Raises EncoderFailed."""
        if self._written != self.spec.frames_made:
            raise EncoderFailed(f"{self._written} frames were written of {self.spec.frames_made}")
        if self._first is not None:
            self._send(self._first)
        self._input.close()
        try:
            status = self._process.wait(FINISH_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise self._failure(f"has not finished within {FINISH_TIMEOUT_S:g} s") from None
        if status:
            raise self._failure(f"ended with status {status}")
        with open(self._output, "rb", closefd=False) as file:
            file.seek(0)
            return file.read()

    def abort(self) -> None:
        """End ffmpeg now; the thread that writes or waits gets EncoderFailed."""
        self._process.kill()

    @property
    def pid(self) -> int:
        """Process id of ffmpeg."""
        return self._process.pid

    def _send(self, frame: Frame) -> None:
        left = np.ascontiguousarray(frame).data.cast("B")
        writable = select.poll()
        writable.register(self._input, select.POLLOUT)
        while left:
            if not writable.poll(self._stall_timeout_s * 1000):
                raise self._failure(f"has taken nothing for {self._stall_timeout_s:g} s")
            try:
                left = left[self._input.write(left) or 0 :]
            except BrokenPipeError:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(FINISH_TIMEOUT_S)  # its status and last lines arrive a moment later
                raise self._failure(f"ended early with status {self._process.returncode}") from None

    def _failure(self, what: str) -> EncoderFailed:
        size = os.fstat(self._log).st_size
        lines = os.pread(self._log, LOG_BYTES, max(0, size - LOG_BYTES)).decode("utf-8", "replace").strip()
        return EncoderFailed(f"ffmpeg {what}, after {self._written} frames: {lines or 'no message'}")


def thumbnail(frame: Frame) -> bytes:
    """`frame` as a WebP of at most 256 pixels a side."""
    image = Image.fromarray(frame)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()


def _memory_file(name: str, opening: contextlib.ExitStack) -> int:
    descriptor = os.memfd_create(name)
    opening.callback(os.close, descriptor)
    return descriptor


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _bundled_ffmpeg() -> str:
    import imageio_ffmpeg

    path: str = imageio_ffmpeg.get_ffmpeg_exe()
    return path


# ------------------------------------------------------------------------------------- ffmpeg's arguments


def _command(ffmpeg: str, spec: VideoSpec, output: int) -> list[str]:
    threads = str(min(MAX_THREADS, len(os.sched_getaffinity(0))))
    return [
        *(ffmpeg, "-hide_banner", "-nostdin", "-nostats", "-loglevel", "warning", "-y"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{spec.width}x{spec.height}"),
        *("-framerate", _ratio(spec.input_rate), "-i", "pipe:0"),
        *("-filter_complex", ",".join(_filters(spec)), "-frames:v", str(spec.num_frames)),
        *("-threads", threads, "-fflags", "+bitexact", "-flags:v", "+bitexact"),  # no dates and no random ids
        *_codec(spec),
        *("-f", spec.output_format, f"/proc/self/fd/{output}"),
    ]


def _ratio(rate: Fraction) -> str:
    return f"{rate.numerator}/{rate.denominator}"


def _filters(spec: VideoSpec) -> list[str]:
    matrix = "bt601" if spec.output_format == "webp" else "bt709"  # the only one that WebP knows
    to_yuv = f"scale=out_color_matrix={matrix}:out_range=tv:flags=accurate_rnd+full_chroma_int,format=yuv444p"
    is_yuv = spec.is_interpolated or spec.output_format != "gif"
    filters = [to_yuv] if is_yuv else []
    if spec.is_interpolated:
        filters += _motion_interpolation(spec)
    if spec.output_format == "gif":
        return [*filters, _palette(spec.quality)]
    filters.append("format=yuv420p")
    if matrix == "bt709":
        filters.append("setparams=color_primaries=bt709:color_trc=bt709")
    return filters


def _motion_interpolation(spec: VideoSpec) -> list[str]:
    rate = _ratio(Fraction(spec.fps).limit_denominator(1001))
    return [
        "tpad=stop_mode=clone:stop=3",  # the last frames need a next one; `-frames:v` drops these again
        f"minterpolate=fps={rate}:mi_mode=mci:mc_mode=aobmc:me_mode=bidir:vsbmc=1:scd=none",
    ]


def _palette(quality: int) -> str:
    """A palette for each frame: one palette for the whole clip would delay every frame until the last."""
    colours = 16 + round((quality - 1) / 99 * 240)
    palette = f"palettegen=stats_mode=single:max_colors={colours}"
    return f"format=rgb24,split[a][b];[a]{palette}[p];[b][p]paletteuse=new=1:dither=bayer:bayer_scale=3"


def _codec(spec: VideoSpec) -> list[str]:
    texts = ["-metadata", f"title={spec.title[:MAX_TITLE_CHARACTERS]}", "-metadata", f"comment={SOFTWARE}"]
    if spec.output_format == "mp4":
        return ["-c:v", "libx264", "-crf", _constant_rate(spec.quality, best=14), "-movflags", "+faststart", *texts]
    if spec.output_format == "webm":
        speed = ["-deadline", "good", "-cpu-used", "4", "-row-mt", "1"]
        return ["-c:v", "libvpx-vp9", "-crf", _constant_rate(spec.quality, best=18), "-b:v", "0", *speed, *texts]
    if spec.output_format == "webp":
        return ["-c:v", "libwebp_anim", "-quality", str(spec.quality), "-loop", "0"]
    return ["-c:v", "gif", "-loop", "0"]


def _constant_rate(quality: int, *, best: int) -> str:
    """The constant rate factor of x264 and VP9, where lower is better: 50 at quality 1, `best` at 100."""
    return str(round(50 - (quality - 1) / 99 * (50 - best)))
