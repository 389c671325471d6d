"""A model in one file: what it is, read from its header before anything is loaded, and how it becomes components.

    header       safetensors or GGUF: names, types, shapes and places of its tensors, with every number checked
    gguf_header  the same of a GGUF file
    kinds        what a file is that holds no FLUX transformer
    names        the transformer's tensors in the layouts of Black Forest Labs, ComfyUI and diffusers -> diffusers'
    other_names  the same for text encoders and the autoencoder
    model_file   ModelFile: a FLUX transformer and other parts, which tensor of the file makes which of a component
    measure      the figures that a plan needs, from the file's own shapes
    base         the diffusers folder that what a file lacks comes from, and the kind of model that it is
    places       where a file lies that FLUX_MODEL or a job names
    content      the hash of a file's bytes, kept while it stays as it is
    shelf        FileShelf: the files of a volume by name; the way in for who serves models
    tensors      a file's numbers as torch tensors, one at a time
    components   components made of them; the way in for who loads models

torch is needed by the last two alone.
"""
