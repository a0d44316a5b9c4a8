"""Generation at T = 1 with K = 4 against the token model with the same backbone.

    OMP_NUM_THREADS=1 python -m bench.generation

Claim: at least 2.5 times as many tokens a second, batch 1 and batch 16; with an autoencoder half as wide as the
backbone, as the paper's are, and with one as wide.
"""

from __future__ import annotations

import torch

from bench.measure import machine, medians
from bench.models import LAYERS, WIDTH, calm, token_model
from bench.plain_sampling import plain_token_generation
from calm_bench.lm import ChunkLanguageModel
from calm_bench.sampling.generate import generate_batch

VOCABULARY, PROMPT, NEW_TOKENS = 4096, 32, 128


def ours(model: ChunkLanguageModel, prompts: torch.Tensor) -> None:
    generators = [torch.Generator().manual_seed(row) for row in range(len(prompts))]
    # An end that no text has: all rows must get their full length, as the baseline's do.
    results = generate_batch(model, prompts.tolist(), NEW_TOKENS, generators, eos_id=NEVER_DRAWN)
    assert all(len(result.tokens) == NEW_TOKENS for result in results)


NEVER_DRAWN = VOCABULARY - 1


def main() -> None:
    print(
        f"{machine()}; {WIDTH} wide, {LAYERS} layers, vocabulary {VOCABULARY}, {PROMPT} prompt tokens, "
        f"{NEW_TOKENS} new ones, medians of five"
    )
    narrow, wide = calm(VOCABULARY), calm(VOCABULARY, autoencoder_width=WIDTH)
    tokens = token_model(VOCABULARY)
    with torch.no_grad():
        tokens.lm_head.weight[NEVER_DRAWN] = 0
        for chunks in (narrow, wide):
            chunks.autoencoder.encoder.embedding.weight[NEVER_DRAWN] = 0  # a logit of 0 is never the largest
    for batch in (1, 16):
        generator = torch.Generator().manual_seed(0)
        prompts = torch.randint(VOCABULARY - 1, (batch, PROMPT), generator=generator)
        taken = medians(
            {
                "token, plain loop": lambda prompts=prompts: plain_token_generation(tokens, prompts, NEW_TOKENS),
                "token, ours": lambda prompts=prompts: ours(tokens, prompts),
                "K=4": lambda prompts=prompts: ours(narrow, prompts),
                "K=4, wide": lambda prompts=prompts: ours(wide, prompts),
            }
        )
        for name, seconds in taken.items():
            ratio = taken["token, plain loop"] / seconds
            print(f"batch {batch:2}: {name:18} {batch * NEW_TOKENS / seconds:8.0f} tokens/s  {ratio:5.2f} x")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
