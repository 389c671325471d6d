"""The rules that score references: they find in a painted landscape what its reference shows, and nothing else."""

from __future__ import annotations

from builder.flux_tiny.reference_score import FACTS, check, unseen_pairs
from builder.flux_tiny.shapes import COLOURS, SHAPES, paint_task, reference_picture


def test_what_is_painted_is_found() -> None:
    pairs = unseen_pairs(40)
    pictures = [paint_task(task, 128, 128) for task, _ in pairs]
    for picture, (task, _) in zip(pictures, pairs, strict=True):
        assert check(picture, task) == dict.fromkeys(FACTS, True)
    others = [check(picture, task) for picture, (task, _) in zip(pictures[1:], pairs, strict=False)]
    assert sum(other["shape"] for other in others) < 20
    assert sum(other["colour"] for other in others) < 16
    assert {task.shape for task, _ in pairs} == set(SHAPES)


def test_a_caption_names_neither_shape_nor_colour() -> None:
    for task, text in unseen_pairs(40):
        assert "image 1" in text
        about_the_shape = text.replace(task.scene.relief_colour, "")
        assert not any(word in about_the_shape for word in (*SHAPES, "orange", "red ", "yellow"))
        assert reference_picture(task, 128, 128).size == (128, 128)
    assert len(COLOURS) == 7
