"""Named configurations: settings by section, layered under a study's own file.

``tiny`` and ``tiny-tuned`` train in minutes on two CPU cores, ``small`` is meant for one GPU, the ``paper-*`` presets
are the sizes of the paper (arXiv 2510.27688, section 5.1) with its training recipe.
"""

from __future__ import annotations

from typing import Any

Settings = dict[str, Any]

CHUNK_SIZE = 4

TINY: Settings = {
    "autoencoder": {
        "latent_size": 32,
        "hidden_size": 96,
        "intermediate_size": 256,
        "training": {
            "num_steps": 700,
            "batch_size": 8,
            "sequence_length": 256,
            "learning_rate": 4e-3,
            # Rare bytes get a gradient once in hundreds of steps; stronger decay would erase them in between.
            "weight_decay": 0.01,
            "warmup_steps": 50,
            "final_learning_rate": 0.05,
        },
    },
    "model": {
        "chunk_size": CHUNK_SIZE,
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_layers": 3,
        "num_attention_heads": 4,
        "head": {"kind": "energy", "num_blocks": 2, "noise_size": 64},
        "training": {
            "num_flops": 3.5e12,
            "batch_size": 8,
            "sequence_length": 256,
            "learning_rate": 3e-3,
            "warmup_steps": 50,
            "final_learning_rate": 0.05,
        },
    },
    "evaluation": {
        "context_length": 256,
        "first_position": 32,
        "position_stride": 8,
        "num_samples": 8,
        # The error comes from differences between documents far more than from the number of positions.
        "max_windows": 500,
    },
}

TINY_TUNED: Settings = {
    **TINY,
    # Near the best of every family at up to 1e12 training FLOPs (the study tuned-frontier; docs/research.md).
    "model": {
        **TINY["model"],
        "training": {**TINY["model"]["training"], "batch_size": 2, "learning_rate": 2e-3, "warmup_steps": 40},
    },
}

SMALL: Settings = {
    "tokens": {"tokenizer": "bpe", "vocab_size": 4096},
    "autoencoder": {
        "latent_size": 128,
        "hidden_size": 256,
        "intermediate_size": 640,
        "training": {
            "num_tokens": 200e6,
            "batch_size": 64,
            "sequence_length": 512,
            "learning_rate": 1e-3,
            "warmup_steps": 500,
        },
    },
    "model": {
        "chunk_size": CHUNK_SIZE,
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_layers": 8,
        "num_attention_heads": 6,
        "head": {"kind": "energy", "num_blocks": 2, "noise_size": 64},
        "training": {
            "num_tokens": 400e6,
            "batch_size": 64,
            "sequence_length": 512,
            "learning_rate": 6e-4,
            "warmup_steps": 1000,
        },
    },
    "evaluation": {"context_length": 512, "first_position": 64, "position_stride": 8, "num_samples": 8},
}


def _paper(hidden_size: int, intermediate_size: int, num_layers: int) -> Settings:
    """A backbone of the paper with head depth layers / 4 and the recipe of section 5.1."""
    return {
        "tokens": {"tokenizer": "meta-llama/Meta-Llama-3-8B", "vocab_size": 128256},
        "autoencoder": {
            "latent_size": 32 * CHUNK_SIZE,
            "hidden_size": 512,
            "intermediate_size": 1280,
            "training": {
                "num_steps": 30_000,
                "batch_size": 64,
                "sequence_length": 8192,
                "learning_rate": 3e-4,
                "warmup_steps": 1000,
                "weight_decay": 0.1,
                "schedule": "constant",
            },
        },
        "model": {
            "chunk_size": CHUNK_SIZE,
            "hidden_size": hidden_size,
            "intermediate_size": intermediate_size,
            "num_layers": num_layers,
            "num_attention_heads": 16,
            "head": {"kind": "energy", "num_blocks": num_layers // 4, "noise_size": 64},
            "training": {
                "num_steps": 250_000,
                # 2048 chunks of context; 2.1M tokens a step.
                "batch_size": 256,
                "sequence_length": 2048 * CHUNK_SIZE,
                "gradient_accumulation": 16,
                "learning_rate": 3e-4,
                "warmup_steps": 2000,
                "weight_decay": 0.1,
                "schedule": "constant",
                "validate_every": 2000,
                "checkpoint_every": 1000,
            },
        },
        "evaluation": {"context_length": 2048, "first_position": 256, "position_stride": 8, "num_samples": 8},
    }


PRESETS: dict[str, Settings] = {
    "tiny": TINY,
    "tiny-tuned": TINY_TUNED,
    "small": SMALL,
    "paper-s": _paper(768, 2048, 12),
    "paper-m": _paper(1024, 2752, 16),
    "paper-l": _paper(1536, 4096, 16),
    "paper-xl": _paper(2560, 6880, 16),
}
