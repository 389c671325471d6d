"""A plan carried out on a loaded pipeline: quantised, offloaded, compiled, cached by step.

`apply.apply` is the way in; it says what really took effect, since libraries and hardware may lack a choice
(fallback.py).
"""
