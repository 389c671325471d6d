"""A plan carried out on a loaded pipeline: quantised, offloaded, compiled, cached by step.

`apply.apply` is the way in; it says what really took effect, since libraries and hardware may refuse a choice
(fallback.py).
"""
