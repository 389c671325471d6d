"""Edits of a picture: what is added around it, and which part of it the model draws.

    expand    Expand: the pixels added to each side
    region    Region: the part that is cut out, drawn at the model's own size and put back
    upscale   the finished picture, enlarged
    control   Control: a map whose edges, depths or poses the picture follows

In come fields of a job and sizes in pixels, out comes arithmetic; no picture is touched here.
"""
