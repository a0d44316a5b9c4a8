"""The one training loop, for the autoencoder, the chunk model and the token model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from calm_bench.arithmetic import resolve_precision, training_arithmetic
from calm_bench.config import Training
from calm_bench.flops import training_steps
from calm_bench.regions import backend_for, compiling
from calm_bench.seeding import derive
from calm_bench.training.averages import Averages, fetched
from calm_bench.training.checkpoint import Checkpoints, Counters
from calm_bench.training.micro_batches import in_pieces
from calm_bench.training.optim import build_optimizer, learning_rate
from calm_bench.training.parallel import current_workers, whole_tensor
from calm_bench.training.plateau import PlateauAlarm
from calm_bench.training.recorder import METRICS_FILE, NullRecorder, Recorder
from calm_bench.training.task import Batches, Diverged, Interrupted, NonFiniteLoss, Summary, TrainingTask
from calm_bench.training.weight_average import WeightAverage
from calm_bench.training.workers import Share
from calm_bench.training_options import KEEP_CHECKPOINTS

CHECKPOINT_S = 20.0
"""Slow trainings save this often whatever ``checkpoint_every`` says, if saving takes little of the time."""
SAVING_SHARE = 20.0
"""Seconds of training that pay for one of saving."""


class Loop:
    """A training in progress on ``folder``; :meth:`run` starts it or goes on where it was interrupted.

    Args:
        micro_batch: sequences at once, for want of memory; unset means those of a micro-batch of ``config``.
    """

    def __init__(
        self,
        trainee: TrainingTask,
        batches: Batches,
        config: Training,
        folder: Path,
        seed: int,
        device: str,
        stop: Callable[[], bool],
        keep_checkpoints: int = KEEP_CHECKPOINTS,
        micro_batch: int | None = None,
    ) -> None:
        self.trainee, self.batches, self.config = trainee, batches, config
        self.seed, self.device, self.stop = seed, device, stop
        self.micro_batch = micro_batch
        self.backend = backend_for(device)
        self.total_steps = training_steps(config, trainee.flops_per_token)
        self.tokens_per_step = config.batch_size * config.sequence_length
        self.workers = current_workers()
        precision = resolve_precision(config.precision, device)
        self.workers.prepare(trainee.module, trainee.units, trainee.skips_parameters, precision)
        named = {n: p for n, p in trainee.module.named_parameters() if p.requires_grad}
        self.parameters = list(named.values())
        self.parts = {part: [named[name] for name in names] for part, names in trainee.parts.items()}
        self.optimizer = build_optimizer(named.items(), config)
        self.average = WeightAverage(self.optimizer, self.parameters, config.weight_average)
        self.checkpoints = Checkpoints(folder / "checkpoints", keep_checkpoints)
        self.metrics_file = folder / METRICS_FILE
        self.averages = Averages()
        self.alarm = PlateauAlarm(self.total_steps, config.log_every, config.warmup_steps)
        self.part_norms: dict[str, Tensor] = {}
        self.step = 0
        self.elapsed = 0.0
        self.first_loss: float | None = None
        self.latest_loss: float | None = None
        self.validation: dict[str, float] = {}
        self.validated_at: int | None = None
        self.arithmetic: list[str] = []
        """What it was computed in, in the order of its runs (:mod:`calm_bench.arithmetic`)."""

    def run(self) -> Summary:
        """Train to the end of the budget; the model then has its averaged weights, where an average is kept.

        Raises:
            NonFiniteLoss: loss or gradient norm is NaN or infinite.
            Diverged: the loss rose above ``divergence_factor`` times that of the first steps.
            Interrupted: ``stop`` said so; a checkpoint was written.
            OSError: a checkpoint could not be written.
        """
        try:
            return self._run()
        finally:
            # However it ends: what was saved last is to be gone on from.
            self.checkpoints.join()

    def _run(self) -> Summary:
        metrics_size = self._resume()
        own = training_arithmetic(self.config.precision, self.device, self.backend is not None)
        if self.arithmetic[-1:] != [own]:
            self.arithmetic.append(own)
        with self._opened(metrics_size) as self.recorder:
            self.resumed_at, self.clock = self.step, time.perf_counter()
            self.elapsed_before = self.elapsed
            self.saved_at, self.saving_s = self.clock, 0.0
            while self.step < self.total_steps:
                if self.workers.any(self.stop()):
                    if self.step > self.resumed_at:
                        self._save()
                    raise Interrupted(f"stopped after step {self.step} of {self.total_steps}")
                self.train_step()
                with self.average.shown():
                    self.trainee.after_step(self.step, self.total_steps)
                last = self.step == self.total_steps
                if self._is_logged(self.step):
                    self._log()
                if last or self.step % self.config.validate_every == 0:
                    self._validate()
                if last or self.step % self.config.checkpoint_every == 0 or self._is_due():
                    self._save()
            if not self.validation:
                # The run had ended, but its result was not published: the last checkpoint holds the model.
                self.validation = self.scores()
        self.average.exchange()
        return self._summary()

    def _is_due(self) -> bool:
        """Whether so much time has gone since the last checkpoint that a kill would hurt; asked when it is logged."""
        if not self._is_logged(self.step):
            return False
        late = time.perf_counter() - self.saved_at > max(CHECKPOINT_S, SAVING_SHARE * self.saving_s)
        return self.workers.any(late)

    def _opened(self, metrics_size: int) -> Recorder:
        return Recorder(self.metrics_file, metrics_size) if self.workers.is_first else NullRecorder()

    def _resume(self) -> int:
        counters = self.checkpoints.restore(self.trainee.module, self.optimizer)
        if counters is None:
            return 0
        self.step, self.elapsed = counters.step, counters.elapsed
        self.first_loss, self.latest_loss = counters.progress["first_loss"], counters.progress["latest_loss"]
        self.arithmetic = list(counters.progress.get("arithmetic", []))
        self.averages.load_state_dict(counters.progress["averages"], self.device)
        if "alarm" in counters.progress:
            self.alarm.load_state_dict(counters.progress["alarm"])
        self.batches.load_state_dict(counters.loader)
        return counters.metrics_size

    def train_step(self) -> None:
        """Take one optimizer step, without logging, validating or saving."""
        self.trainee.module.train()
        rate = learning_rate(self.config, self.step, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        parts, told = self.config.gradient_accumulation, []
        shares = self._in_pieces(self._next_shares())
        for share in shares:
            noise = self.workers.noise(share, self.seed, self.step, self.device)
            with self.workers.last(share is shares[-1]):
                with self._arithmetic():
                    loss, terms = self.workers.call(self.trainee.loss, share.tokens, noise)
                (loss * (share.fraction * self.workers.size) / parts).backward()
            told.append((share, {"loss": loss.detach(), **terms}))
        for terms, count in self.workers.totals(told, parts):
            self.averages.add(terms, count)
        if self._is_logged(self.step + 1):
            # Before clipping, like the norm of the whole; kept on the device until it is logged.
            self.part_norms = {name: _gradient_norm(part) for name, part in self.parts.items()}
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm, error_if_nonfinite=False)
        self.grad_norm = whole_tensor(norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.average.note(self.step)

    def _in_pieces(self, shares: Sequence[Share]) -> list[Share]:
        whole = self.config.batch_size // self.config.gradient_accumulation
        return in_pieces(shares, self.micro_batch, whole, self.workers.size)

    def _next_shares(self) -> list[Share]:
        """What this worker computes of the next batch; rows of others are not read."""
        numbers = torch.arange(self.config.batch_size)
        shares = self.workers.shares(numbers, self.config.gradient_accumulation, self.trainee.draws_by_rows)
        tokens = self._on_device(self.batches.take(torch.cat([share.tokens for share in shares])))
        each = tokens.split([len(share.tokens) for share in shares])
        return [replace(share, tokens=own) for share, own in zip(shares, each, strict=True)]

    def _on_device(self, tokens: Tensor) -> Tensor:
        """Copied while the device is still busy with the step before."""
        if self.device.startswith("cuda"):
            tokens = tokens.pin_memory()
        return tokens.to(self.device, non_blocking=True)

    def _is_logged(self, step: int) -> bool:
        return step == self.total_steps or step % self.config.log_every == 0

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """What losses are computed with: the number format, and whether regions are compiled."""
        is_bf16 = resolve_precision(self.config.precision, self.device) == "bf16"
        kind = torch.device(self.device).type
        with compiling(self.backend), torch.autocast(kind, torch.bfloat16) if is_bf16 else nullcontext():
            yield

    def _log(self) -> None:
        norms = {"grad_norm": self.grad_norm}
        norms |= {f"grad_norm_{name}": norm for name, norm in self.part_norms.items()}
        read = fetched({**self.averages.sums, **norms})
        means = {name: read[name] / self.averages.count for name in self.averages.sums}
        self._check_finite(means["loss"], read["grad_norm"])
        self._check_level(means["loss"])
        self.averages.clear()
        self.latest_loss = means["loss"]
        now = time.perf_counter() - self.clock
        self.elapsed = self.elapsed_before + now
        is_on_plateau = self.alarm.note(self.step, means)
        self._record(
            "train",
            {
                **means,
                **({} if is_on_plateau is None else {"plateau": float(is_on_plateau)}),
                "learning_rate": self.optimizer.param_groups[0]["lr"],
                **{name: read[name] for name in norms},
                "tokens_per_second": (self.step - self.resumed_at) * self.tokens_per_step / max(now, 1e-9),
            },
        )

    def _check_finite(self, loss: float, norm: float) -> None:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            finer = ""
            if resolve_precision(self.config.precision, self.device) != "fp32":
                finer = f", or use {self._setting('precision')}=fp32"
            raise NonFiniteLoss(f"loss {loss}, gradient norm {norm} {self._where()}: {self._calmer()}{finer}")

    def _check_level(self, loss: float) -> None:
        """Check the mean loss of a whole window of logging: what a stop cuts off must not decide."""
        if self.first_loss is None:
            self.first_loss = loss
        elif loss > self.config.divergence_factor * abs(self.first_loss):
            raise Diverged(
                f"loss {loss:.4g} {self._where()} is more than {self.config.divergence_factor:g} times the first "
                f"{self.first_loss:.4g}: {self._calmer()}"
            )

    def _calmer(self) -> str:
        return f"lower {self._setting('learning_rate')} or raise {self._setting('warmup_steps')}"

    def _setting(self, name: str) -> str:
        return f"{self.trainee.section}.training.{name}"

    def _where(self) -> str:
        rate = self.optimizer.param_groups[0]["lr"]
        return f"at step {self.step} of {self.total_steps} (learning rate {rate:.2e})"

    def _validate(self) -> None:
        self.validation = self.scores()
        self.validated_at = self.step
        self._record("validation", self.validation)

    def scores(self) -> dict[str, float]:
        """Loss and other scores of the held-out text as the model is now, means over its windows."""
        with self.average.shown():
            return self._scores_of_the_model()

    def _scores_of_the_model(self) -> dict[str, float]:
        self.trainee.module.eval()
        parts, held_out = self.config.gradient_accumulation, self.trainee.held_out
        micro_batches = held_out.split(self.config.batch_size // parts)
        seed, told, rows = derive(self.seed, "validation"), [], []
        with torch.no_grad(), self._arithmetic():
            shares = self.workers.scored(micro_batches, parts, self.trainee.draws_by_rows)
            for share in self._in_pieces(shares):
                noise = self.workers.noise(share, seed, 0, self.device)
                tokens = share.tokens.to(self.device)
                loss, terms = self.workers.evaluate(self.trainee.scores, tokens, noise)
                told.append({"loss": loss, **terms})
                rows.append(len(tokens) if share.counts else 0)
        values = fetched({(name, index): value for index, each in enumerate(told) for name, value in each.items()})
        names = list(told[0])
        own = [sum(values[name, index] * count for index, count in enumerate(rows)) for name in names]
        return {name: total / len(held_out) for name, total in zip(names, self.workers.sums(own), strict=True)}

    def _save(self) -> None:
        if self.averages.count:
            # Never overwrite a good checkpoint with a broken model.
            self._check_finite(self.averages.means()["loss"], float(self.grad_norm))
        self.elapsed = self.elapsed_before + time.perf_counter() - self.clock
        progress = {
            "first_loss": self.first_loss,
            "latest_loss": self.latest_loss,
            "averages": self.averages.state_dict(),
            "alarm": self.alarm.state_dict(),
            "arithmetic": self.arithmetic,
        }
        validation_loss = self.validation.get("loss") if self.validated_at == self.step else None
        counters = Counters(
            self.step, self.elapsed, self.recorder.sync(), progress, self.batches.state_dict(), validation_loss
        )
        begun = time.perf_counter()
        self.checkpoints.save(self.trainee.module, self.optimizer, counters)
        self.saved_at = time.perf_counter()
        self.saving_s = self.saved_at - begun

    def _record(self, split: str, metrics: dict[str, float]) -> None:
        tokens = self.step * self.tokens_per_step
        self.recorder.write(
            {
                "step": self.step,
                "total_steps": self.total_steps,
                "tokens": tokens,
                "flops": tokens * self.trainee.flops_per_token,
                "time": round(self.elapsed, 3),
                "split": split,
                "metrics": metrics,
            }
        )

    def _summary(self) -> Summary:
        tokens = self.step * self.tokens_per_step
        return Summary(
            steps=self.step,
            tokens=tokens,
            training_flops=tokens * self.trainee.flops_per_token,
            final_loss=self.latest_loss,
            validation=self.validation,
            wall_time_s=self.elapsed,
            tokens_per_second=tokens / max(self.elapsed, 1e-9),
            plateau_steps=self.alarm.steps,
            arithmetic=", then ".join(self.arithmetic),
        )


def _gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return whole_tensor(nn.utils.get_total_norm(gradients))
