"""URLs as clients and redirects write them: what is sent, and what is no URL."""

from __future__ import annotations

import random

import pytest

from flux_engine.net.urls import NotAUrl, parsed_url

BASE = parsed_url("https://h.example:8443/a%2Fb/c?x=%2B")
ORIGIN = "https://h.example:8443"


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://H.Example/a b?q=a b+c", "https://h.example/a%20b?q=a%20b+c"),
        ("  https://h.example/x  ", "https://h.example/x"),
        ("https://h.example/ü?ö=%C3%A4", "https://h.example/%C3%BC?%C3%B6=%C3%A4"),
        ("https://h.example/e\u0301", "https://h.example/e%CC%81"),
        ("https://h.example/a\\b\tc", "https://h.example/a%5Cb%09c"),
        ("https://h.example?x=1", "https://h.example/?x=1"),
        ("https://h.example/x#part?y", "https://h.example/x"),
        ("https://h.example:443/x", "https://h.example/x"),
        ("https://bücher.example/x", "https://xn--bcher-kva.example/x"),
        ("HTTPS://h.example/%7e/../y", "https://h.example/%7e/../y"),
        ("https://[2606:4700::1111]:444/x", "https://[2606:4700::1111]:444/x"),
    ],
)
def test_what_is_written_is_sent(written: str, sent: str) -> None:
    assert str(parsed_url(written)) == sent


@pytest.mark.parametrize(
    ("location", "sent"),
    [
        ("/x%2F?y=%7E", f"{ORIGIN}/x%2F?y=%7E"),
        ("?z=%2B", f"{ORIGIN}/a%2Fb/c?z=%2B"),
        ("d/../e?f", f"{ORIGIN}/a%2Fb/e?f"),
        ("//o.example/q%20", "https://o.example/q%20"),
        ("http://o.example/q", "http://o.example/q"),
        ("#top", f"{ORIGIN}/a%2Fb/c?x=%2B"),
        ("/\udce4\udcff", f"{ORIGIN}/%E4%FF"),
    ],
)
def test_a_redirect_may_be_relative(location: str, sent: str) -> None:
    assert str(parsed_url(location, base=BASE)) == sent


@pytest.mark.parametrize(
    "written",
    [
        *("", " ", "x", "/x", "https:", "https:x", "https://", "https:///x", "mailto:a@b.example", "a:b:c"),
        *("https://exa mple.com/", "https://a\\b/", "https://%41.example/", "https://a..b/", "https://h.example:1x/"),
        *("https://h.example:99999/", "https://[::1/", "https://[]@/", "https://a\u200bb.example/"),
        *(f"https://{'a' * 64}.example/", "https://h.example/" + "x" * 9000),
        *("https://h.example/\ud800", "https://h.example/\udc80", "https://h.example/#\udcff"),
        *("https://ex\ud800.example/", "https://a,b/"),
    ],
)
def test_what_is_no_url(written: str) -> None:
    with pytest.raises(NotAUrl) as refused:
        parsed_url(written)
    assert "example" not in str(refused.value)


PARTS = (
    *("https://", "http:", "//", "h.example", "[::1]", "user:pw@", ":80", "/", "?", "#", "%", "%2F", "..", " ", "\\"),
    *("\0", "\n", "ü", "\u202e", "\ud800", "\udcff", "=", "&", "+", "xn--", "１２７", "ß", "😀", "@", "[", "]"),
    "a" * 70,
)


def test_made_up_urls_are_sent_or_refused() -> None:
    """2,000 of them: nothing but NotAUrl, and what is sent has no blank, no control and no character beyond ASCII."""
    chance = random.Random(12)
    sent = 0
    for _ in range(2000):
        start = chance.choice(["", "https://", "https://h.example/"])
        text = start + "".join(chance.choices(PARTS, k=chance.randint(0, 9)))
        try:
            url = parsed_url(text, base=chance.choice([None, BASE]))
        except NotAUrl:
            continue
        sent += 1
        assert all("!" <= character <= "~" for character in str(url)), text
    assert 200 < sent < 1900
