"""An autoencoder that reads the chunk before: what it knows, and who else has to hand it on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from calm_bench.autoencoder import Autoencoder
from calm_bench.autoencoder.loss import autoencoder_loss
from calm_bench.autoencoder.probe import probe
from calm_bench.config import Autoencoder as AutoencoderConfig
from calm_bench.config import LanguageModel
from calm_bench.heads.noise import OneSource
from calm_bench.lm import Calm
from calm_bench.sampling.continuations import sample_continuations
from calm_bench.sampling.reader import Reader

K, V, WINDOWS, STEPS = 2, 11, 3, 4
SIZES = {"latent_size": 3, "hidden_size": 12, "intermediate_size": 16}


def autoencoder(**settings: object) -> Autoencoder:
    torch.manual_seed(0)
    built = Autoencoder(AutoencoderConfig.model_validate({**SIZES, "context_chunks": 1, **settings}), K, V)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return built.eval()


def calm() -> Calm:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_layers": 2, "num_attention_heads": 2}
    head = {"num_blocks": 1, "noise_size": 4, "num_samples": 2, "num_targets": 3}
    model = Calm(LanguageModel.model_validate({**sizes, "chunk_size": K, "head": head}), autoencoder())
    with torch.no_grad():
        model.head.final.out_proj.weight += torch.randn_like(model.head.final.out_proj.weight)  # type: ignore
    return model.eval()


def text(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(V, shape, generator=Generator().manual_seed(seed))


def test_the_rest_of_the_weights_start_as_they_do_without_it() -> None:
    states = []
    for count in (0, 1):
        torch.manual_seed(0)
        config = AutoencoderConfig.model_validate({**SIZES, "context_chunks": count})
        states.append(Autoencoder(config, K, V).state_dict())
    added = {name for name in states[1] if name not in states[0]}
    assert {name.split(".")[0] for name in added - {"decoder.context_norm.weight"}} == {"context"}
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert "context_chunks" not in AutoencoderConfig().model_dump()


def test_a_chunk_is_read_beside_the_one_before_and_no_other() -> None:
    model, tokens = autoencoder(), text(1, 5 * K)
    mean, _ = model.encode(tokens)
    changed = tokens.clone()
    changed[0, 2 * K] = (changed[0, 2 * K] + 1) % V
    moved = (model.encode(changed)[0] - mean).abs().sum(-1)[0] > 1e-6
    assert moved.tolist() == [False, False, True, True, False]
    contexts = model.contexts(tokens.unflatten(-1, (-1, K)))
    assert contexts is not None
    latents = torch.randn(1, 5, 3)
    assert not torch.allclose(model.logits(latents, contexts), model.logits(latents, contexts.roll(1, dims=1)))


def test_the_loss_hides_dropped_tokens_from_the_next_chunk_too() -> None:
    model = autoencoder(token_dropout=0.5)
    tokens, uniform = text(2, STEPS, K), torch.ones(2, STEPS, K)
    uniform[0, 1] = 0  # dropped
    normal = torch.zeros(2, STEPS, 3)
    dropped = uniform <= 0.5
    other = torch.where(dropped, (tokens + 1) % V, tokens)

    def posterior(chunks: Tensor) -> Tensor:
        context = model.contexts(chunks, dropped)
        mean: Tensor = model.encoder(chunks, dropped, context)[0]
        return mean

    torch.testing.assert_close(posterior(tokens), posterior(other))
    loss, terms = autoencoder_loss(model, tokens, uniform, normal, None)
    loss.backward()
    assert terms["reconstruction"].isfinite()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_probes_read_a_chunk_behind_the_one_before() -> None:
    model = autoencoder()
    found = probe(model, text(40, 2 * K), seed=0)
    assert found.posterior.num_tokens == 40 * K
    with pytest.raises(ValueError, match="reads 4 tokens for a chunk, found 2"):
        probe(model, text(40, K), seed=0)


@torch.no_grad()
def test_a_state_holds_the_context_of_its_chunk_however_it_was_read() -> None:
    model, tokens = calm(), text(WINDOWS, STEPS * K)
    states = model.hidden_states(tokens)
    hidden, context = model.parts(states)
    assert context is not None
    torch.testing.assert_close(context, model.autoencoder.context_after(tokens.unflatten(-1, (-1, K))))
    assert hidden.shape[-1] == model.config.hidden_size
    torch.testing.assert_close(model.read_text(tokens).hidden, states)
    # Padded in front, and the last chunk in a step of its own.
    reader = Reader(model, [tokens[0, : 2 * K].tolist(), tokens[1, : 3 * K].tolist()])
    reader.read(torch.stack([tokens[0, 2 * K : 3 * K], tokens[1, 3 * K :]]))
    torch.testing.assert_close(reader.hidden, torch.stack([states[0, 2], states[1, 3]]))


@torch.no_grad()
def test_drawn_chunks_are_the_context_of_those_that_follow() -> None:
    """A continuation of a tree is what reading its own tokens again, from the beginning, decodes to."""
    model, tokens = calm(), text(WINDOWS, STEPS * K)
    latents: list[Tensor] = []
    contexts: list[Tensor] = []
    chunk = model.autoencoder.decoder.chunk

    def recorded(drawn: Tensor, context: Tensor | None) -> Tensor:
        assert context is not None
        latents.append(drawn)
        contexts.append(context)
        return chunk(drawn, context)

    model.autoencoder.decoder.chunk = recorded  # type: ignore[method-assign,assignment]
    generators = [Generator().manual_seed(window) for window in range(WINDOWS)]
    drawn = sample_continuations(model, tokens, [2 * K, 3 * K], 5, 2 * K, generators)
    first = drawn[..., :K].flatten(0, 2)  # [W P S, K], in the order of the samples
    torch.testing.assert_close(contexts[1], model.autoencoder.context_after(first))
    decoded = model.autoencoder.decode(latents[1], model.autoencoder.context_after(first))
    assert torch.equal(decoded, drawn[..., K:].flatten(0, 2))


@torch.no_grad()
def test_ways_of_drawing_agree() -> None:
    model, tokens = calm(), text(WINDOWS, STEPS * K)
    states = model.hidden_states(tokens)[:, -1]
    rows = model.draw_rows(states, 4, [Generator().manual_seed(row) for row in range(WINDOWS)])
    for row in range(WINDOWS):
        assert torch.equal(rows[:, row], model.draw(states[row], 4, Generator().manual_seed(row)))
    both = model.draw(states, 4, Generator().manual_seed(9)).flatten(0, 1)
    draft = model.draft(states, OneSource(states, 4, Generator().manual_seed(9)))
    samples = torch.arange(4 * WINDOWS)
    assert torch.equal(torch.stack([draft.token(index, samples) for index in range(K)], dim=-1), both)


def test_targets_are_encoded_beside_the_chunk_before(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = calm(), text(WINDOWS, STEPS * K)
    seen: list[Tensor] = []
    loss = model.head.loss

    def recorded(hidden: Tensor, mean: Tensor, *rest: Any) -> tuple[Tensor, dict[str, Tensor]]:
        seen.extend([hidden, mean])
        return loss(hidden, mean, *rest)

    monkeypatch.setattr(model.head, "loss", recorded)
    model.loss(tokens, Generator().manual_seed(0))[0].backward()
    assert seen[0].shape == (WINDOWS * (STEPS - 1), 16)
    torch.testing.assert_close(seen[1], model.autoencoder.encode(tokens)[0][:, 1:].flatten(0, 1))
    assert all(parameter.grad is None for parameter in model.autoencoder.parameters())
