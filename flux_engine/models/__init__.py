"""What a FLUX model is, where its weights are, how it runs on a card, and the pipeline that comes of it.

`manager.FluxModelManager` is the way in: one warm model at a time, tuned by a plan (planning/), carried out (tuning/),
with each job's LoRAs (lora/). catalog.py, spec.py and planning/ are facts and arithmetic, without torch.
"""
