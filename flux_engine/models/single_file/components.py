"""Components made of a file's tensors as `from_pretrained` makes them of a folder's: same class, dtype, quantisation.

Of the base folder come the configurations, with what the transformer's own tensors say put over them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from flux_engine.models.single_file.model_file import ModelFile
from flux_engine.models.single_file.tensors import ComponentTensors, lazy_tensors

SCHEDULER: Final = {  # of FLUX.1 with and without guidance, where the base folder is of the other kind
    True: {"shift": 3.0, "use_dynamic_shifting": True},
    False: {"shift": 1.0, "use_dynamic_shifting": False},
}


def load_component(
    file: ModelFile, name: str, of_class: Any, *, folder: Path, device: str, arguments: dict[str, Any]
) -> Any:
    """The component `name` of `file`, of `of_class`, on `device`.

    `arguments` are those of `from_pretrained` (dtype and quantisation). Raises what a broken folder makes it raise:
    ValueError where a tensor does not fit.
    """
    tensors = ComponentTensors(file, name, device=device)
    dtype, config = arguments["dtype"], arguments.get("quantization_config")
    if name == "transformer":
        settings = of_class.load_config(folder / name) | dict(file.config)
        return _transformer(of_class, settings, tensors, device=device, dtype=dtype, config=config)
    if name == "vae":
        vae = of_class.from_config(of_class.load_config(folder / name))
        vae.load_state_dict(dict(tensors.items()), assign=True)
        return vae.to(device=device, dtype=dtype).eval()
    return of_class.from_pretrained(
        None,
        config=of_class.config_class.from_pretrained(folder / name, local_files_only=True),
        state_dict=lazy_tensors(tensors),
        dtype=dtype,
        **({"quantization_config": config} if config is not None else {}),
        **({"device_map": device} if device != "cpu" else {}),
    )


def suit_scheduler(pipeline: Any, file: ModelFile, *, base_has_guidance: bool) -> None:
    """Give `pipeline` the schedule of the file's kind where its folder is of the other: dev shifts by size, schnell not
    at all."""
    has_guidance = bool(file.config["guidance_embeds"])
    if file.family == "FLUX.1" and has_guidance != base_has_guidance:
        scheduler = pipeline.scheduler
        pipeline.scheduler = type(scheduler).from_config(scheduler.config, **SCHEDULER[has_guidance])


def _transformer(
    of_class: Any, settings: dict[str, Any], tensors: ComponentTensors, *, device: str, dtype: Any, config: Any
) -> Any:
    """diffusers' `from_single_file` would not quantise: it takes what a file holds for quantised already."""
    import torch
    from accelerate import init_empty_weights
    from diffusers.models.model_loading_utils import load_model_dict_into_meta
    from diffusers.quantizers import DiffusersAutoQuantizer

    with init_empty_weights():
        model = of_class.from_config(settings)
    odd = set(model.state_dict()).symmetric_difference(tensors.names())
    if odd:
        raise ValueError(f"the transformer has other tensors than its class: {min(odd)} and {len(odd) - 1} more")
    quantizer = None
    if config is not None:
        quantizer = DiffusersAutoQuantizer.from_config(config, pre_quantized=False)
        quantizer.preprocess_model(model=model, device_map=None, keep_in_fp32_modules=[])
    load_model_dict_into_meta(
        model,
        tensors,
        dtype=dtype,
        hf_quantizer=quantizer,
        keep_in_fp32_modules=[],
        device_map={"": torch.device(device)},
        unexpected_keys=[],
    )
    if quantizer is not None:
        quantizer.postprocess_model(model)
        model.hf_quantizer = quantizer
    return model.eval()
