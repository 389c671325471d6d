"""What a FLUX model is, where its weights are, how it runs on a card, and the pipeline that comes of it.

`manager.FluxModelManager` is the way in: the warm models, each tuned by a plan (planning/) that is carried out
(tuning/), with each job's LoRAs (lora/) and the volume's other networks (beside/). A model may come in one file
(single_file/). catalog.py, spec.py and planning/ are facts and arithmetic, without torch.
"""
