"""The stage ``samples``: what a trained model writes after the beginnings of held-out documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calm_bench.atomic import write_bytes
from calm_bench.config import Samples
from calm_bench.devices import device_name
from calm_bench.fingerprint import folder_identity
from calm_bench.memory import sampling_memory
from pipelines.common.numbers import printable
from pipelines.common.sanitize import without_controls
from pipelines.study.cost import SMALL_FILES_BYTES, STAGE_S, CostContext, StageCost
from pipelines.study.kinds.enough_text import text_left_elsewhere
from pipelines.study.kinds.generation_speed import WritingSpeed, chosen_speed, in_words
from pipelines.study.kinds.trained import load_trained
from pipelines.study.kinds.writing_statistics import in_words as in_words_beside_held_out
from pipelines.study.kinds.writing_statistics import judged, judgement_in_words, measure_texts, writing_metrics
from pipelines.study.row import FinishedStage, RowPart
from pipelines.study.stage import Interrupted, Stage
from pipelines.study.stage_context import StageContext
from pipelines.study.stage_kind import StageKind

if TYPE_CHECKING:
    from calm_bench.lm.base import ChunkLanguageModel
    from calm_bench.sampling.temperature import Decoding
    from calm_bench.tokens import TokenStream
    from calm_bench.tokens.tokenizer import Tokenizer

FILE = "samples.md"


def run_samples(stage: Stage, inputs: Mapping[str, Path], folder: Path, context: StageContext) -> dict[str, Any]:
    """Continue every prompt at every temperature; the texts are the result, and ``samples.md`` for people.

    ``speed`` in the result holds, by temperature at which the texts were long enough to tell, the tokens a second
    (:class:`WritingSpeed`), how they were drawn and on which device; ``statistics`` what they repeat and how they vary
    beside held-out text; ``judgements`` their generative perplexity where ``samples.judge`` names a model.
    """
    from calm_bench.tokens import TokenStream, load_tokenizer

    settings = Samples.model_validate(stage.config["samples"])
    model = load_trained(stage, inputs["language_model"] / "model", context.device)
    tokenizer = load_tokenizer(inputs["tokens"] / "tokenizer")
    stream = TokenStream.open(inputs["tokens"], "test")
    prompts = prompts_of(stream, settings.num_prompts, settings.prompt_tokens)
    held_out = continuations_of(stream, settings.num_prompts, settings.prompt_tokens, settings.num_tokens)
    texts, speeds, statistics, judgements = [], [], [], []
    remarks: list[str] = []
    for temperature in settings.temperatures:
        if context.stop():
            raise Interrupted(f"stopped before the texts at temperature {temperature:g}")
        speed = WritingSpeed(len(prompts), model.chunk_size)
        seed = int(stage.config["seed"])
        written = _Written(len(prompts))
        texts += write_texts(
            model, tokenizer, prompts, temperature, settings, seed, context.device, written.and_tell(speed)
        )
        if (found := measure_texts(written.tokens, held_out, temperature)) is not None:
            statistics.append(found)
        if settings.judge is not None:
            if any(text["text"] for text in texts if text["temperature"] == temperature):
                judge = Path(stage.settings["judge"])
                judgements.append(judged(judge, texts, temperature, context.device))
            elif prompts:
                remarks.append(f"no text at temperature {temperature:g} to judge: all are empty")
        measured = speed.result()
        if measured is not None:
            how = {"decode_mode": decoding_of(temperature, settings).label, "device": device_name(context.device)}
            speeds.append({"temperature": temperature, **how, **measured})
    notes = [*map(in_words_beside_held_out, statistics), *map(judgement_in_words, judgements)]
    write_bytes(folder / FILE, as_markdown(texts, notes).encode())
    result: dict[str, Any] = {"texts": texts, "speed": speeds, "statistics": statistics}
    if len(prompts) < settings.num_prompts:
        remarks.append(
            f"{len(prompts)} of {settings.num_prompts} prompts: as many different documents of the test split have "
            f"more than {settings.prompt_tokens} tokens (samples.prompt_tokens) and an end"
        )
    return result | {name: found for name, found in (("judgements", judgements), ("remarks", remarks)) if found}


def samples_changed(stage: Stage) -> str | None:
    """The judge's folder, where it holds another model than that of which the study spoke."""
    if "judge" not in stage.settings:
        return None
    folder = Path(stage.settings["judge"])
    is_same = not folder.is_dir() or folder_identity(folder) == stage.config["samples"]["judge"]
    return None if is_same else f"the judge in {folder} (samples.judge)"


class _Written:
    """The tokens of each text of a batch, as they are drawn."""

    def __init__(self, num_texts: int) -> None:
        self.tokens: list[list[int]] = [[] for _ in range(num_texts)]

    def and_tell(self, other: Callable[[int, list[int]], None]) -> Callable[[int, list[int]], None]:
        """Keep each piece and tell it to ``other`` too."""

        def on_tokens(index: int, piece: list[int]) -> None:
            other(index, piece)
            self.tokens[index] += piece

        return on_tokens


def prompts_of(stream: TokenStream, count: int, length: int) -> list[list[int]]:
    """The first ``length`` tokens of ``count`` different documents that are longer, spread evenly over the split.

    Fewer where there are fewer such documents. Of copies one is taken: after another one of them the model would be
    asked the same, and held-out text would look as if it repeated itself.
    """
    return [stream[start : start + length].tolist() for start, _ in _prompted(stream, count, length)]


def continuations_of(stream: TokenStream, count: int, length: int, num_tokens: int) -> list[list[int]]:
    """What the documents themselves say after the prompts of :func:`prompts_of`, ``num_tokens`` or to their ends."""
    return [
        stream[start + length : min(start + length + num_tokens, end)].tolist()
        for start, end in _prompted(stream, count, length)
    ]


def _prompted(stream: TokenStream, count: int, length: int) -> list[tuple[int, int]]:
    """Starts and ends of the documents whose beginnings are prompts."""
    ends = stream.document_ends.tolist()
    starts = [0, *ends[:-1]]
    # A document's last token is the end of the text: a prompt that holds it would leave nothing to write.
    fitting = [(start, end) for start, end in zip(starts, ends, strict=True) if end - start > length + 1]
    count, chosen = min(count, len(fitting)), _Different(stream, length)
    for index in range(count):
        first = index * len(fitting) // count
        # In place of a copy the next document that is none.
        for document in chain(fitting[first:], fitting[:first]):
            if chosen.add(document):
                break
        else:
            break
    return chosen.documents


class _Different:
    """Starts and ends of documents of which none is a copy of another; most are told apart by length and beginning."""

    def __init__(self, stream: TokenStream, beginning: int) -> None:
        self.documents: list[tuple[int, int]] = []
        self._stream = stream
        self._beginning = beginning
        self._alike: dict[tuple[int, bytes], list[tuple[int, int]]] = {}

    def add(self, document: tuple[int, int]) -> bool:
        """Take a document, unless it is a copy of one that is there; whether it was taken."""
        start, end = document
        alike = self._alike.setdefault((end - start, self._stream[start : start + self._beginning].tobytes()), [])
        tokens = self._stream[start:end] if alike else None
        if any((self._stream[slice(*other)] == tokens).all() for other in alike):
            return False
        alike.append(document)
        self.documents.append(document)
        return True


def as_markdown(texts: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()) -> str:
    """Prompts and continuations as Markdown, in blocks that no text of theirs can leave.

    Args:
        notes: what was measured of them, a line each.
    """
    parts = ["# Samples\n", *(f"{note}\n" for note in notes)]
    for text in texts:
        whole = without_controls(f"{text['prompt']}⟦{text['text']}⟧")
        ended = "the model ended the text" if text["ended"] else f"cut after {text['num_tokens']} tokens"
        fence = "```"
        while fence in whole:
            fence += "`"
        parts.append(
            f"Temperature {text['temperature']:g} ({ended}; {text['head_evaluations']:,} head evaluations). What the "
            f"model wrote is between ⟦ and ⟧.\n\n{fence}text\n{whole}\n{fence}\n"
        )
    return "\n".join(parts)


def write_texts(
    model: ChunkLanguageModel,
    tokenizer: Tokenizer,
    prompts: list[list[int]],
    temperature: float,
    settings: Samples,
    seed: int,
    device: str,
    on_tokens: Callable[[int, list[int]], None] | None = None,
) -> list[dict[str, Any]]:
    """What ``model`` writes after each of ``prompts`` (token ids), and what it cost.

    Args:
        on_tokens: called with a prompt's place and each piece of its text as it is drawn.
    """
    from calm_bench.sampling.generate import generate_batch
    from calm_bench.seeding import generator

    generators = [generator(seed, "samples", index, device=device) for index in range(len(prompts))]
    decoding = decoding_of(temperature, settings)
    written = generate_batch(model, prompts, settings.num_tokens, generators, tokenizer.eos_id, decoding, on_tokens)
    return [
        {
            "temperature": temperature,
            "prompt": tokenizer.decode(prompt),
            "text": tokenizer.decode(result.tokens),
            "num_tokens": len(result.tokens),
            "ended": result.ended,
            "head_evaluations": result.head_evaluations,
        }
        for prompt, result in zip(prompts, written, strict=True)
    ]


def decoding_of(temperature: float, settings: Samples) -> Decoding:
    """How texts are drawn: not by the exact algorithm, whose price has no bound where a model is unsure, since these
    texts are only read."""
    from calm_bench.sampling.temperature import Decoding

    return Decoding(temperature, "batch", settings.candidates)


def samples_cost(stage: Stage, context: CostContext) -> StageCost:
    """Writing all texts."""
    experiment, workload = context.experiment, context.language_model
    autoencoder = experiment.autoencoder if experiment.model.needs_autoencoder else None
    memory = sampling_memory(experiment.model, autoencoder, context.vocab_size, experiment.samples, context.device)
    seconds = STAGE_S + context.speed_of(workload).texts
    return StageCost(seconds, memory, 3.0 * SMALL_FILES_BYTES, measured=context.is_measured(workload))


def samples_summary(result: Mapping[str, Any]) -> str:
    """How many texts there are, in words, and why they are fewer than was asked for."""
    if "texts" not in result:
        return ""
    return "; ".join([f"{len(result['texts'])} texts", *map(printable, result.get("remarks", ()))])


def samples_row(finished: FinishedStage) -> RowPart:
    """How fast the model wrote, and how that was measured."""
    # A store that was written before speeds were measured has none.
    speeds = finished.result.get("speed", ())
    speed = chosen_speed(speeds, finished.trial["language_model"]["decode_mode"])
    if speed is None:
        return RowPart()
    return RowPart({"generated_tokens_per_second": float(speed["tokens_per_second"]), "generation": in_words(speed)})


SAMPLES = StageKind(
    "samples",
    run_samples,
    heading="Samples of text",
    changed=samples_changed,
    left_elsewhere=text_left_elsewhere,
    cost=samples_cost,
    summary=samples_summary,
    row_part=samples_row,
    metrics=writing_metrics,
    artifacts=(FILE,),
)
