from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from flux_engine.media.canny import edge_map


def test_the_edges_of_a_thing_are_thin_white_lines() -> None:
    picture = Image.new("RGB", (120, 90), (40, 60, 120))
    ImageDraw.Draw(picture).rectangle((30, 20, 90, 70), fill=(230, 200, 60))
    edges = np.asarray(edge_map(picture).convert("L")) > 0
    rows, columns = np.nonzero(edges)
    assert {int(columns.min()), int(columns.max())} <= {29, 30, 90, 91}
    assert {int(rows.min()), int(rows.max())} <= {19, 20, 70, 71}
    assert not edges[30:60, 40:80].any()
    assert edges[45].sum() == 2  # one pixel wide
    assert edges[:, 60].sum() == 2


def test_a_map_is_left_as_it_is() -> None:
    edges = Image.new("L", (120, 90), 0)
    ImageDraw.Draw(edges).ellipse((30, 20, 90, 70), outline=255)
    assert edge_map(edges.convert("RGB")).tobytes() == edges.convert("RGB").tobytes()


def test_a_plain_surface_has_no_edges() -> None:
    assert edge_map(Image.new("RGB", (64, 64), (120, 130, 140))).getextrema() == ((0, 0),) * 3
    assert edge_map(Image.linear_gradient("L").convert("RGB")).getextrema() == ((0, 0),) * 3
