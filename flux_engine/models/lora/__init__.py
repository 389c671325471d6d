"""LoRA files checked, translated to diffusers' names and put into the transformer for one job.

`manager.LoRAManager` is the way in, with two ways to hold LoRAs: `adapters` and `slot`. A file is hostile until `file`
and `format` have checked it.
"""
