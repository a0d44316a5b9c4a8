"""Text from a trained model: what ``calm-bench generate`` does."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.models import TrainedModel


def continue_text(
    model: TrainedModel,
    prompt: str,
    max_new_tokens: int,
    seed: int,
    device: str = "cpu",
    warn: Callable[[str], None] | None = None,
) -> str:
    """What ``model`` writes after ``prompt``, sampled at temperature 1.

    Args:
        warn: told when the prompt's last, incomplete chunk could not be conditioned on exactly.

    Raises:
        WeightsError, TokenizerError: the folder cannot be read.
    """
    from calm_bench.lm import load_language_model
    from calm_bench.sampling.generate import generate
    from calm_bench.seeding import generator
    from calm_bench.tokens import load_tokenizer

    tokenizer = load_tokenizer(model.folder / "tokenizer")
    network = load_language_model(model.folder, device)
    generated = generate(
        network,
        tokenizer.encode(prompt),
        max_new_tokens,
        generator(seed, "generate", device=device),
        tokenizer.eos_id,
    )
    if generated.fell_back and warn is not None:
        warn(
            f"the prompt does not end at a multiple of the model's {network.chunk_size} tokens, and the model finds "
            "its last tokens unlikely: the chunks were aligned with the prompt's end instead"
        )
    return tokenizer.decode(generated.tokens)
