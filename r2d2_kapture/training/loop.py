"""The training loop: any network, any objective, any batches of tensors.

It knows nothing of R2D2: an Objective turns a network and a batch into a loss, Tasks
hold what is done with files and validation images, and both come from the outside.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from r2d2_kapture.config.train import OptimizationConfig, PaceConfig
from r2d2_kapture.errors import ConfigError, OutputError
from r2d2_kapture.training.distributed import Process
from r2d2_kapture.training.logs import Mean, RunLog, progress_line
from r2d2_kapture.training.optimization import learning_rate, moving_average
from r2d2_kapture.training.state import RunState
from r2d2_kapture.training.stopping import StopRequest

LOSS = "loss"
"""The term of an objective that is minimised; all terms are logged."""
PAIRS = "pairs"
"""The term, where an objective has it, of how many pairs of the batch contributed."""
SCORE = "score"
"""The figure of a validation by which the best weights are chosen: more is better."""
MAX_SKIPPED_IN_A_ROW = 20
LINE_SECONDS = 60.0

Batch = Sequence[Tensor]
Clock = Callable[[], float]
Network = TypeVar("Network", bound=nn.Module)


class Objective(Protocol):
    """What a network is trained for; objectives inherit from it.

    Its own state, which most have none of, changes in ``observe`` only.
    """

    def __call__(
        self, network: nn.Module, batch: Batch, generator: torch.Generator
    ) -> Mapping[str, Tensor]:
        """Compute the loss of a batch, and terms that are to be logged.

        Args:
            network: in training mode, maybe a replica; to be called once.
            batch: on the network's device.
            generator: of the CPU, source of everything random.

        Returns:
            Scalars by name; LOSS is differentiable, and depends on every weight that
            is trained, if only by a factor of 0. PAIRS may be among them.
        """

    def observe(self, terms: Mapping[str, float]) -> None:
        """Take note of the terms of a step that changed weights, means over all
        processes.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        """What ``observe`` has changed, as plain values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what state_dict gave."""
        return None


@dataclass(kw_only=True)
class Progress:
    """How far a run is.

    Attributes:
        step: steps taken, skipped ones included.
        skipped: steps whose loss or gradient was not finite; they changed nothing.
        skipped_in_a_row: the latest of them without another step between.
        best_step: step of the best validation, None before the first.
        best_score: of that validation.
        scored_by: kind of that score; None where it is not known, as in states of
            versions before.
    """

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best_step: int | None = None
    best_score: float = -math.inf
    scored_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step did.

    Attributes:
        values: terms of the objective, norm of the gradient and learning rate.
        applied: whether the step counts: everything was finite.
        stop: whether any process was asked to stop.
    """

    values: dict[str, float]
    applied: bool
    stop: bool


class Trainer(Generic[Network]):
    """A network, what it is trained for, and all that changes with a step.

    Args:
        network: on its device; the parameters that require a gradient are trained.
        objective: what it is trained for.
        config: of the optimisation.
        total_steps: of the run, for the learning rate.
        settings: all that decide the weights, to be kept in the state.
        process: this one among several.
    """

    def __init__(
        self,
        network: Network,
        objective: Objective,
        config: OptimizationConfig,
        total_steps: int,
        settings: Mapping[str, Any],
        process: Process = Process(),
    ) -> None:
        self.network = network
        self.objective = objective
        self.config = config
        self.total_steps = total_steps
        self.settings = settings
        self.progress = Progress()
        self._process = process
        self._parameters = [p for p in network.parameters() if p.requires_grad]
        self._device = self._parameters[0].device
        self._optimizer = torch.optim.Adam(
            self._parameters, lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self._average = (
            moving_average(network, config.average_decay)
            if config.average_decay
            else None
        )
        self._replica = process.replicate(network)

    @property
    def result(self) -> Network:
        """The weights to validate and export: the average, where one is kept."""
        if self._average is None:
            return self.network
        return cast(Network, self._average.module)

    def step(self, batch: Batch, *, stop_requested: bool = False) -> StepResult:
        """Take one step.

        One that is not finite, or in which no pair of any process contributed,
        changes no weight and no statistic: momentum and weight decay, too, would move
        weights by a gradient of 0.

        Args:
            batch: on any device.
            stop_requested: whether this process was asked to stop.
        """
        progress = self.progress
        rate = learning_rate(progress.step, self.total_steps, self.config)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        statistics = [buffer.clone() for buffer in self.network.buffers()]
        self._optimizer.zero_grad()
        terms = self._backward(batch)
        norm = nn.utils.clip_grad_norm_(
            self._parameters, self.config.gradient_clip or math.inf
        )
        # one reduction, so that all processes take the same decision
        stop = norm.new_tensor(float(stop_requested))
        summary = torch.stack([stop, norm, *(t.detach() for t in terms.values())])
        asked, *figures = self._process.mean(summary.float()).tolist()
        values = dict(zip(["gradient_norm", *terms], figures, strict=True))
        applied = math.isfinite(values["gradient_norm"]) and math.isfinite(values[LOSS])
        progress.step += 1
        if applied:
            progress.skipped_in_a_row = 0
        else:
            progress.skipped += 1
            progress.skipped_in_a_row += 1
        if applied and values.get(PAIRS, 1.0) > 0:
            self._optimizer.step()
            if self._average is not None:
                self._average.update_parameters(self.network)
            self.objective.observe(values)
        else:
            with torch.no_grad():
                for buffer, before in zip(self.network.buffers(), statistics):
                    buffer.copy_(before)
        return StepResult(
            values={**values, "learning_rate": rate}, applied=applied, stop=asked > 0
        )

    def _backward(self, batch: Batch) -> Mapping[str, Tensor]:
        seed = _seed_of(self.config.seed, self.progress.step, self._process.rank)
        torch.manual_seed(seed)  # for layers that draw at random themselves
        generator = torch.Generator().manual_seed(seed)
        self.network.train()
        moved = [tensor.to(self._device, non_blocking=True) for tensor in batch]
        terms = self.objective(self._replica, moved, generator)
        terms[LOSS].backward()  # type: ignore[no-untyped-call]
        return terms

    def state(self) -> RunState:
        """All that the next step depends on."""
        return RunState(
            settings=dict(self.settings),
            step=self.progress.step,
            network=self.network.state_dict(),
            average=self._average.state_dict() if self._average is not None else None,
            optimizer=self._optimizer.state_dict(),
            objective=self.objective.state_dict(),
            progress=dataclasses.asdict(self.progress),
        )

    def restore(self, state: RunState) -> None:
        """Continue where a run of the same settings and network was."""
        self.network.load_state_dict(state.network)
        if self._average is not None and state.average is not None:
            self._average.load_state_dict(state.average)
        self._optimizer.load_state_dict(state.optimizer)
        self.objective.load_state_dict(state.objective)
        self.progress = Progress(**state.progress)
        self.progress.skipped_in_a_row = 0


def _seed_of(*numbers: int) -> int:
    """A seed of 64 bits that differs for all tuples of numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


@dataclass(frozen=True, kw_only=True)
class Tasks(Generic[Network]):
    """What the main process does between the steps.

    Attributes:
        save: keep the state and export the weights of now.
        validate: figures of a network in evaluation mode, SCORE among them.
        keep_best: export the weights of now as the best so far.
        scored_by: kind of the SCORE; scores of different kinds cannot be compared.
    """

    save: Callable[[Trainer[Network]], None]
    validate: Callable[[Network], Mapping[str, float]]
    keep_best: Callable[[Trainer[Network]], None]
    scored_by: str = SCORE


class Supervisor(Generic[Network]):
    """Logs, validates and saves between the steps of the main process."""

    def __init__(
        self,
        trainer: Trainer[Network],
        pace: PaceConfig,
        tasks: Tasks[Network],
        log: RunLog,
        clock: Clock = time.monotonic,
    ) -> None:
        self._trainer = trainer
        self._pace = pace
        self._tasks = tasks
        self._log = log
        self._clock = clock
        self._row, self._line = Mean(), Mean()
        self._row_time, self._line_time = Mean(), Mean()
        self._saved_at = self._told_at = clock()

    def begin(self) -> None:
        """Validate what the run starts from."""
        if self._pace.validate_every and self._trainer.progress.step == 0:
            self._validate()

    def after_step(self, result: StepResult, seconds: float, waited: float) -> None:
        """Do what is due after a step that took some seconds, some of them waiting."""
        step, last = self._trainer.progress.step, self._trainer.total_steps
        for mean in (self._row_time, self._line_time):
            mean.add({"seconds_per_step": seconds, "data_wait_seconds": waited})
        if result.applied:
            for mean in (self._row, self._line):
                mean.add(result.values)
        if step % self._pace.log_every == 0 or step == last:
            self._write_row()
        if self._clock() - self._told_at >= LINE_SECONDS:
            self._tell()
        every = self._pace.validate_every
        if every and (step % every == 0 or step == last):
            self._validate()
        due = self._clock() - self._saved_at >= 60 * self._pace.save_minutes
        if (step % self._pace.save_every == 0 or due) and step != last:
            self._try_to_save()

    def save(self) -> None:
        """Save the state.

        Raises:
            OutputError: it cannot be written; the one before it remains.
        """
        self._tasks.save(self._trainer)
        self._saved_at = self._clock()

    def _try_to_save(self) -> None:
        """A full disk may have space again by the next time."""
        try:
            self.save()
        except OutputError as error:
            self._saved_at = self._clock()
            self._log.announce(f"{error}; training continues, the last state remains")

    def _validate(self) -> None:
        network, progress = self._trainer.result, self._trainer.progress
        network.eval()
        with ExitStack() as failing:
            failing.callback(self._try_to_save)  # no step taken is lost
            figures = self._tasks.validate(network)
            failing.pop_all()
        self._log.validation(progress.step, figures)
        self._compare_like_with_like()
        if figures[SCORE] > progress.best_score:
            progress.best_score, progress.best_step = figures[SCORE], progress.step
            try:
                self._tasks.keep_best(self._trainer)
            except OutputError as error:
                self._log.announce(f"{error}; training continues")

    def _compare_like_with_like(self) -> None:
        """Begin the search for the best anew if a resume changed its criterion."""
        progress, kind = self._trainer.progress, self._tasks.scored_by
        if progress.scored_by not in (None, kind) and progress.best_step is not None:
            self._log.announce(
                f"note: the best weights are chosen by {kind} from now on, not by "
                f"{progress.scored_by} any more; the best of step {progress.best_step} "
                "no longer counts"
            )
            progress.best_score, progress.best_step = -math.inf, None
        progress.scored_by = kind

    def _write_row(self) -> None:
        means, times = self._row.take(), self._row_time.take()
        if means:
            skipped = float(self._trainer.progress.skipped)
            self._log.training(
                self._trainer.progress.step,
                {**means, **times, "skipped_steps": skipped},
            )

    def _tell(self) -> None:
        self._told_at = self._clock()
        progress, times = self._trainer.progress, self._line_time.take()
        seconds = times["seconds_per_step"]
        share = times["data_wait_seconds"] / max(seconds, 1e-9)
        values = {**self._line.take(), "data_wait": share}
        if progress.skipped:
            values["skipped_steps"] = progress.skipped
        self._log.announce(
            progress_line(progress.step, self._trainer.total_steps, values, seconds)
        )


def train(
    trainer: Trainer[Network],
    batches: Iterator[Batch],
    supervisor: Supervisor[Network] | None,
    stop: StopRequest,
    clock: Clock = time.monotonic,
) -> None:
    """Train until the run's last step, or until asked to stop.

    Args:
        trainer: new or restored.
        batches: from the one of the trainer's next step on.
        supervisor: None in all processes but the main one.
        stop: request to stop; the step under way is finished and the state saved.
        clock: of seconds.

    Raises:
        KeyboardInterrupt: stopped, and saved.
        ConfigError: the loss was not finite many times in a row; the state is saved.
        OutputError: the last state cannot be written; the one before it remains.
    """
    if supervisor is not None:
        supervisor.begin()
    while trainer.progress.step < trainer.total_steps:
        begun = clock()
        batch = next(batches)
        waited = clock() - begun
        result = trainer.step(batch, stop_requested=stop.requested)
        if supervisor is not None:
            supervisor.after_step(result, clock() - begun, waited)
        if result.stop or trainer.progress.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            break
    if supervisor is not None:
        supervisor.save()
    if trainer.progress.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
        raise ConfigError(
            f"--learning-rate {trainer.config.learning_rate:g}: the loss or its "
            f"gradient was not finite in {MAX_SKIPPED_IN_A_ROW} steps in a row up to "
            f"step {trainer.progress.step}, which changed nothing; the state is saved; "
            "start anew with a lower rate, a warm-up or --gradient-clip"
        )
    if trainer.progress.step < trainer.total_steps:
        raise KeyboardInterrupt
