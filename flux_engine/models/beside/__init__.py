"""Networks of the volume that stand beside a model while a job needs them.

controlnets   ControlNets: those that a picture's maps are followed by
upscaler      what enlarges a finished picture
"""
