"""The worker against the stand-in for RunPod (local_platform/), and the stand-in itself."""
