"""A model in one file: what it is, told from its header before anything is loaded, and how it becomes components.

    header       safetensors or GGUF: names, types, shapes and places of its tensors, with every number checked
    gguf_header  the same of a GGUF file
    kinds        what a file is that holds no FLUX transformer
    names        a tensor's name in the layouts of Black Forest Labs and ComfyUI -> diffusers' and transformers' name
    model_file   ModelFile: a FLUX transformer and other parts, which tensor of the file makes which of a component
    tensors      the file's numbers as torch tensors, one at a time
    places       where a file lies that FLUX_MODEL or a job names

torch is needed by `tensors` alone.
"""
