"""What an autoencoder keeps and bears: what ``calm-bench probe`` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from calm_bench.opening import open_autoencoder
from calm_bench.overrides import ConfigurationError
from pipelines.common.numbers import share_with_error
from pipelines.common.tables import plain_table
from pipelines.scoring.models import TrainedModel
from pipelines.scoring.stored_text import prepare_text, read_text
from pipelines.store.store import Store

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from torch import Tensor

    from calm_bench.autoencoder.probe import AccuracyAt, Probes


def probe_model(
    model: TrainedModel,
    store: Store,
    overrides: Sequence[str] = (),
    seed: int = 0,
    max_tokens: int | None = None,
    device: str = "cpu",
) -> Probes:
    """Probe a trained autoencoder, or the one inside a CALM model, on held-out text.

    The text is the split of ``evaluation.split`` of the corpus it was trained on; a model without known origin is
    probed on the default corpus.

    Args:
        overrides: assignments to ``corpus.*`` and ``evaluation.split``.
        seed: of the sample of chunks and the noise.
        max_tokens: of the sample; unset means what a training's own probes read.

    Raises:
        ConfigurationError: a token model, other keys, or fewer tokens than one chunk.
        WeightsError: the folder cannot be read.
    """
    from calm_bench.autoencoder.probe import PROBE_TOKENS, probe
    from calm_bench.tokens import TokenStream, different_chunks

    autoencoder = open_autoencoder(model.folder, device, model.autoencoder)
    experiment, graph = prepare_text(model, store, overrides)

    def read(folder: Path) -> tuple[TokenStream, Tensor]:
        stream = TokenStream.open(folder, experiment.evaluation.split)
        return stream, different_chunks(stream, autoencoder.span, autoencoder.span)

    stream, chunks = read_text("tokens", graph, store, read)
    if stream.vocab_size > autoencoder.vocab_size:
        raise ConfigurationError(
            f"the tokenizer has {stream.vocab_size} tokens, the autoencoder of {model.folder} only "
            f"{autoencoder.vocab_size}: it is not the model's; --tokenizer names another"
        )
    try:
        return probe(autoencoder, chunks, seed, max_tokens or PROBE_TOKENS)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def print_probes(probes: Probes, console: Console) -> None:
    """Every probe with its error."""
    from rich.columns import Columns
    from rich.text import Text

    collapsed, posterior = probes.collapsed, probes.posterior
    lines = (
        f"Autoencoder of K = {probes.chunk_size} tokens in {probes.latent_size} dimensions; "
        f"on {posterior.num_tokens:,} held-out tokens in {collapsed.num_chunks:,} chunks, "
        "± one standard error over chunks",
        f"Reconstructed from a draw of the posterior (average standard deviation {probes.posterior_std:.2g}): "
        + share_with_error(posterior.value, posterior.standard_error),
        f"Collapsed dimensions (KL to the prior below {collapsed.threshold:g} nats): {collapsed.value} ± "
        f"{collapsed.standard_error:.2g} of {probes.latent_size}; KL {min(collapsed.kl):.3g} to "
        f"{max(collapsed.kl):.3g} nats a dimension",
    )
    for line in lines:
        console.print(Text(line), soft_wrap=True)
    noise = _curve("Noise's std", probes.noise, lambda level: (f"{level:g}",))
    bits_per_token = probes.latent_size / probes.chunk_size
    bits = _curve("Bits", probes.bits, lambda level: (f"{level:g}", f"{level * bits_per_token:g}"), "A token")
    console.print()
    console.print(Columns([noise, bits], padding=(0, 4)))
    console.print(
        Text(
            "Noise is added to the posterior's mean. Bits: each dimension of the mean is rounded to the middle of one "
            "of 2^b equal cells between the smallest and the largest value seen.",
            style="dim",
        ),
        soft_wrap=True,
    )


def _curve(heading: str, points: Sequence[AccuracyAt], cells: Callable[[float], tuple[str, ...]], *more: str) -> Table:

    table = plain_table()
    for name in (heading, *more, "Reconstructed"):
        table.add_column(name, justify="right", no_wrap=True)
    for point in points:
        accuracy = point.accuracy
        table.add_row(*cells(point.level), share_with_error(accuracy.value, accuracy.standard_error))
    return table
