"""Small models of transformers with a tokenizer, in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"
TEXT = ["the quick brown fox jumps over the lazy dog, naïve 日本語\n"] * 3

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
ARCHITECTURES: dict[str, Any] = {
    "gpt2": lambda vocab, positions: transformers.GPT2Config(
        vocab_size=vocab, n_positions=positions, n_embd=16, n_layer=2, n_head=2, tie_word_embeddings=False
    ),
    "llama": lambda vocab, positions: transformers.LlamaConfig(
        vocab_size=vocab, max_position_embeddings=positions, intermediate_size=24, num_key_value_heads=1, **SIZES
    ),
    "gpt_neox": lambda vocab, positions: transformers.GPTNeoXConfig(
        vocab_size=vocab, max_position_embeddings=positions, intermediate_size=24, **SIZES
    ),
    "bloom": lambda vocab, positions: transformers.BloomConfig(
        vocab_size=vocab, hidden_size=16, n_layer=2, n_head=2, tie_word_embeddings=False
    ),
}


def tiny_model(kind: str, vocab_size: int, positions: int = 64, sharpness: float = 1.0) -> Any:
    """Randomly initialised; ``sharpness`` multiplies the logits."""
    torch.manual_seed(0)
    config = ARCHITECTURES[kind](vocab_size, positions)
    config.bos_token_id = config.eos_token_id = 0
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        # Of standard deviation 1: untrained weights give nearly equal logits, whatever was read.
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(len(name)))
        model.get_output_embeddings().weight.mul_(sharpness)
    return model.eval()


def tiny_tokenizer() -> Any:
    """Byte-level BPE of 270 ids."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=270, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(TEXT, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, bos_token=END, pad_token=END)


def save_tiny(folder: Path, kind: str = "gpt2", positions: int = 512, vocab_size: int = 270) -> Path:
    """A model and its tokenizer."""
    tiny_model(kind, vocab_size, positions).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
