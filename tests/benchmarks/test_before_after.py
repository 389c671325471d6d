"""Lines of two trees' benchmarks side by side."""

from __future__ import annotations

from benchmarks.before_after import Lines, compared, read


def test_lines_with_the_same_words_are_put_side_by_side() -> None:
    before: Lines = {}
    after: Lines = {}
    for printed in ("| hit | 19 | 20.5 |\nonly before 1\n", "| hit | 19 | 30.5 |", "| hit | 19 | 21 |"):
        for words, numbers in read(printed):
            before.setdefault(words, []).append(numbers)
    for printed in ("job\n| hit | 19 | 1,018 |", "| hit | 19 | 16 |\nonly after: 2"):
        for words, numbers in read(printed):
            after.setdefault(words, []).append(numbers)
    assert list(compared(before, after)) == ["| hit | 19 | 21 → 517 |"]
