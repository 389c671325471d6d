"""The line for the device: order by place, and how long a place is held."""

from __future__ import annotations

import threading
from collections.abc import Callable

from flux_engine.generate.turns import Line

FOR_EVER_S = 600.0


def naming(seen: list[str], name: str) -> Callable[[], None]:
    return lambda: seen.append(name)


def test_pieces_come_in_the_order_of_their_places_whichever_was_ready_first() -> None:
    line, seen = Line(place_held_s=FOR_EVER_S), list[str]()
    with line.place() as first, line.place() as second, line.place() as third:
        line.put(naming(seen, "third"), place=third)
        line.put(naming(seen, "first"), place=first)
        line.put(naming(seen, "second"), place=second)
        for _ in range(3):
            line.next()()
    assert seen == ["first", "second", "third"]


def test_the_device_waits_for_the_one_whose_turn_it_is() -> None:
    line, seen, asked = Line(place_held_s=FOR_EVER_S), list[str](), threading.Event()

    def take_two() -> None:
        asked.set()
        line.next()()
        line.next()()

    device = threading.Thread(target=take_two)
    with line.place() as first, line.place() as second:
        line.put(naming(seen, "second"), place=second)
        device.start()
        asked.wait()
        line.put(naming(seen, "first"), place=first)
        device.join()
    assert seen == ["first", "second"]


def test_one_that_is_long_in_coming_holds_nobody_up_and_keeps_its_place() -> None:
    line, seen = Line(place_held_s=0.0), list[str]()
    with line.place() as slow, line.place() as second, line.place() as third:
        line.put(naming(seen, "second"), place=second)
        line.next()()
        line.put(naming(seen, "third"), place=third)
        line.put(naming(seen, "slow"), place=slow)
        line.next()()
        line.next()()
    assert seen == ["second", "slow", "third"]


def test_a_place_that_is_left_is_waited_for_no_more() -> None:
    line, seen = Line(place_held_s=FOR_EVER_S), list[str]()
    leaving = line.place()
    leaving.__enter__()

    def take_one() -> None:
        line.next()()

    device = threading.Thread(target=take_one)
    with line.place() as second:
        line.put(naming(seen, "second"), place=second)
        device.start()
        leaving.__exit__(None, None, None)
        device.join()
    assert seen == ["second"]
