"""Models and tensors in files that the authors' code and ours both read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from calm_bench.export import export_reference
from calm_bench.lm import Calm, ChunkLanguageModel


class Folder:
    """Models and tensors where both sides find them."""

    def __init__(self, path: Path) -> None:
        self._path, self._count = path, 0

    def _new(self) -> Path:
        self._count += 1
        return self._path / str(self._count)

    def model(self, model: ChunkLanguageModel) -> str:
        """A chunk model as the authors', a token model as transformers' Llama."""
        folder = self._new()
        if isinstance(model, Calm):
            export_reference(model, folder, eos_id=model.vocab_size - 1)
        else:
            write_llama(model, folder)
        return str(folder)

    def tensor(self, values: Tensor) -> str:
        file = self._new().with_suffix(".npy")
        np.save(file, values.numpy())
        return str(file)


def write_llama(model: ChunkLanguageModel, folder: Path) -> None:
    config = model.config
    folder.mkdir()
    sizes = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.key_value_heads,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "vocab_size": model.vocab_size,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    architecture = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(sizes | architecture))
    tensors = {name.replace("backbone.", "model."): tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
