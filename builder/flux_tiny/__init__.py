"""The bundled models made from nothing, and how well they do.

train            flux-tiny, end to end: text, autoencoder, flow, with checkpoint between the stages
scenes, captions, landscapes, shapes   what is painted, in words and in pixels
kontext          flux-tiny-kontext, from flux-tiny
lora             examples/loras/mosaic.safetensors
night_filter     a content filter to try without a download
score, reference_score, probes   the questions that pictures and weights are asked
"""
