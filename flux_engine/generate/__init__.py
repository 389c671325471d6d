"""Pictures and frames from a job, on the one thread that touches the device.

`gpu.GpuThread` runs device work in the order in which jobs were taken and gives it up when a job is cancelled;
image.py and video/ turn a job into pixels. In come jobs, decoded inputs and a loaded model; files, URLs and the
platform are unknown here.
"""
