"""Networks of the volume that stand beside a model while a job needs them.

content_filter  the classifier that may withhold a finished picture
controlnets     ControlNets: those that a picture's maps are followed by
depth           what makes a depth map of a picture
upsampler       what enhances a prompt
upscaler        what enlarges a finished picture
"""
