"""The two tokenizers and text encoders of flux-tiny, as small as the captions allow."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Final

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from builder.flux_tiny.captions import captions

CLIP_TOKENS: Final = 48
T5_TOKENS: Final = 32  # what the model is trained with, and the catalogue's default for it
CORPUS_CAPTIONS: Final = 20_000
COMMON_WORDS: Final = [
    "the",
    "of",
    "in",
    "is",
    "with",
    "by",
    "from",
    "over",
    "under",
    "above",
    "below",
    "behind",
    "near",
    "and",
    "one",
    "two",
    "at",
    "on",
    "to",
    "very",
    "bright",
    "dark",
    "soft",
    "calm",
    "painting",
    "picture",
    "landscape",
    "scene",
    "view",
    "image",
    "photo",
    "beautiful",
    "no",
    "not",
    "without",
]


def new_clip_tokenizer() -> CLIPTokenizer:
    """Byte-level BPE, trained on captions; every byte is in it, so any text has a spelling."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    words = (re.sub(r"[^a-z]+", "\n", text).split("\n") for text in captions(CORPUS_CAPTIONS, seed=1))
    bpe.train_from_iterator((word for line in words for word in line if word), trainer)
    model = json.loads(bpe.to_str())["model"]
    vocabulary: dict[str, int] = dict(model["vocab"])
    for byte in sorted(alphabet):  # a byte that ends a word is a token of its own in CLIP's spelling
        vocabulary.setdefault(f"{byte}</w>", len(vocabulary))
    merges = [(left, right) for left, right in model["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CLIP_TOKENS)


def new_t5_tokenizer() -> T5Tokenizer:
    """Unigram over whole words with letters after them.

    Unigram's own trainer takes the words of a text made from templates apart into letters, so the vocabulary is
    given: a word scores its log frequency, a letter less than any word.
    """
    counts = Counter(re.findall(r"[a-z]+", " ".join(captions(CORPUS_CAPTIONS, seed=1))))
    for word in COMMON_WORDS:
        counts.setdefault(word, 5)
    total = counts.total()
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary += [(f"▁{word}", math.log(n / total)) for word, n in sorted(counts.items())]
    vocabulary += [(letter, -14.0) for letter in "▁,.-'0123456789abcdefghijklmnopqrstuvwxyz"]
    vocabulary += [(letter, -14.5) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    vocabulary += [(f"▁{word.capitalize()}", math.log(n / total) - 1) for word, n in sorted(counts.items())]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=T5_TOKENS)


def new_clip_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=256,
            projection_dim=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=CLIP_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_t5_encoder(tokenizer: T5Tokenizer) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=96,
            d_kv=24,
            d_ff=256,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            is_encoder_decoder=False,
            use_cache=False,
            tie_word_embeddings=False,
        )
    )
