"""Training: photographs in, weights out; resumable."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from r2d2_kapture.config.extract import EngineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.train import PaceConfig, TrainConfig
from r2d2_kapture.config.training_sources import SourceConfig, ValidationConfig
from r2d2_kapture.core.runtime import Runtime, resolve_runtime
from r2d2_kapture.errors import CheckpointError, ConfigError, R2D2KaptureError
from r2d2_kapture.io.outputs.atomic import (
    output_error,
    write_bytes_atomic,
    write_text_atomic,
)
from r2d2_kapture.io.outputs.ledger import Contents, write_report
from r2d2_kapture.io.outputs.lock import exclusive
from r2d2_kapture.io.outputs.manifest import differences
from r2d2_kapture.models.checkpoints import (
    Checkpoint,
    load_checkpoint,
    serialize_checkpoint,
)
from r2d2_kapture.models.mean_checkpoint import load_mean_checkpoint
from r2d2_kapture.models.network import DenseNetwork, FeatureNetwork
from r2d2_kapture.models.registry import Architecture, build_network
from r2d2_kapture.models.transfer import transfer_weights
from r2d2_kapture.stages.train.data import TrainingData, open_training_data
from r2d2_kapture.stages.train.methods import Method, method_of
from r2d2_kapture.stages.train.validation import Validator, posed_pairs
from r2d2_kapture.training.data import PairDataset, make_loader
from r2d2_kapture.training.distributed import Process, joined, this_process
from r2d2_kapture.training.logs import RunLog
from r2d2_kapture.training.loop import Batch, Supervisor, Tasks, Trainer, train
from r2d2_kapture.training.state import read_state
from r2d2_kapture.training.stopping import (
    StopRequest,
    leave_signals_to_parent,
    stop_on_signals,
)
from r2d2_kapture.training.teacher import AlikedTeacher, load_teacher
from r2d2_kapture.types import Failure, Report

STATE_NAME = "state.pt"
MODEL_NAME = "model.safetensors"
BEST_NAME = "best.safetensors"
SETTINGS_NAME = "train_config.yaml"
REPORT_NAME = "train_report.json"
NAMED_FAILURES = 5
RUNS = Contents(what="run", files=())

Announce = Callable[[str], None]


def no_announcement(line: str) -> None:
    """Report nothing."""


def run(
    config: TrainConfig,
    *,
    inputs: SourceConfig,
    output: Path,
    start_from: tuple[str, ...] = (),
    teacher: Path | None = None,
    validation: ValidationConfig = ValidationConfig(),
    license: str = "unspecified",
    options: RunOptions = RunOptions(),
    announce: Announce = no_announcement,
) -> Report:
    """Train R2D2, Fast-R2D2 or D2-Net on pairs of images.

    R2D2 and Fast-R2D2 learn from a folder of photographs or from the sources of the
    published recipe, D2-Net from pairs with depth and poses. Ctrl-C saves and stops;
    the same command again resumes. On several GPUs: torchrun --nproc-per-node 8 -m
    r2d2_kapture.cli.train, with the same flags.

    Args:
        config: settings of training.
        inputs: folders of images.
        output: folder of the run: weights, state, logs; an existing run resumes.
        start_from: checkpoints whose mean are the initial weights; random weights
            without any.
        teacher: file of ALIKED's weights, aliked-n16.pth or aliked-n32.pth, for
            distillation instead of AP; needs pip install 'r2d2-kapture[kornia]'.
        validation: data that selects the best weights, besides held-out photographs.
        license: licence of the weights, written into them.
        options: its workers are processes that make pairs; ``force`` starts again.
        announce: called with lines for the terminal, one per minute.

    Raises:
        KeyboardInterrupt: stopped by SIGINT or SIGTERM; the state is saved.
        ConfigError: the loss is not finite.
        OutputError: settings differ from those of the run at ``output``, or files
            cannot be written.
        CheckpointError, DatasetError, ImageError: see their messages.
    """
    started = time.monotonic()
    process = this_process()
    taught_by = load_teacher(teacher) if teacher is not None else None
    method = method_of(config, taught_by)
    runtime = _runtime(config, process)
    if not process.is_main:
        announce = no_announcement
    data = open_training_data(inputs, validation, config.pairs, config.megadepth)
    with ExitStack() as stack:
        if process.is_main:
            stack.enter_context(exclusive(output))
        stop = stack.enter_context(stop_on_signals())
        stack.enter_context(joined(process, runtime.device))
        job = _Job(
            config=config,
            method=method,
            data=data,
            output=output,
            start_from=start_from,
            teacher=taught_by,
            license_name=license,
            process=process,
            runtime=runtime,
        )
        trainer = job.open(resume=not options.force)
        first_step = trainer.progress.step
        if first_step < trainer.total_steps:
            announce(job.headline(trainer))
            if first_step and job.trained_on_others():
                announce("note: the images differ from those at the start of the run")
            _announce_skipped("left out", data.opened.skipped, announce)
            _announce_skipped("left out of validation", data.posed.skipped, announce)
            _announce_in_both(data.in_both, announce)
            _train(job, trainer, options.workers, stop, announce)
    report = Report(
        stage="train",
        unit="step",
        done=trainer.progress.step - first_step,
        skipped=first_step,
        failed=(),
        seconds=time.monotonic() - started,
        outputs=tuple(
            path for path in (output / MODEL_NAME, output / BEST_NAME) if path.exists()
        ),
        details=job.details(trainer),
        warnings=data.warnings,
    )
    return write_report(output / REPORT_NAME, report) if process.is_main else report


@dataclass(frozen=True, kw_only=True)
class _Job:
    """The resolved inputs and the outputs of a run."""

    config: TrainConfig
    method: Method
    data: TrainingData
    output: Path
    start_from: tuple[str, ...]
    teacher: AlikedTeacher | None
    license_name: str
    process: Process
    runtime: Runtime

    @property
    def architecture(self) -> Architecture:
        network = self.config.network
        return Architecture(
            name=network.architecture,
            width=network.width,
            descriptor_dim=network.descriptor_dim,
        )

    @property
    def pairs_per_step(self) -> int:
        return self.config.optimization.batch_size * self.process.world_size

    @property
    def total_steps(self) -> int:
        return self.config.pace.total_steps(self.data.items, self.pairs_per_step)

    @property
    def mixed(self) -> bool:
        """Whether convolutions compute in bfloat16."""
        return self.runtime.precision == "bf16"

    def open(self, *, resume: bool) -> Trainer[FeatureNetwork]:
        """A trainer at the first step, or at the saved state."""
        network, first_weights = self._first_network()
        settings = {
            **self.config.deciding(self.method.unused),
            "start_from": first_weights,
            "teacher": self.teacher.sha256 if self.teacher is not None else None,
        }
        path = self.output / STATE_NAME
        state = read_state(path) if resume else None
        if state is not None:
            # what only one version of the package knows is no difference
            common = state.settings.keys() & settings.keys()
            theirs, ours = (
                {name: made[name] for name in common}
                for made in (state.settings, settings)
            )
            RUNS.refuse(path, differences(theirs, ours))
        trainer = Trainer(
            network.to(  # type: ignore[call-overload]
                self.runtime.device, memory_format=torch.channels_last
            ),
            self.method.objective(mixed=self.mixed),
            self.config.optimization,
            self.total_steps,
            settings,
            self.process,
        )
        if state is not None:
            trainer.restore(state)
        return trainer

    def _first_network(self) -> tuple[FeatureNetwork, str | None]:
        """The network at step 0, and the SHA-256 of its initial weights."""
        if not self.start_from:
            torch.manual_seed(self.config.optimization.seed)
            network = build_network(self.architecture)
            self.method.prepare(network, None)
            return network, None
        checkpoint = load_mean_checkpoint(self.start_from, "--start-from")
        network = self._with_weights_of(checkpoint).requires_grad_(True)
        self.method.prepare(network, checkpoint)
        return network, checkpoint.sha256

    def _with_weights_of(self, checkpoint: Checkpoint) -> FeatureNetwork:
        """The network of the checkpoint, or that of the settings with its weights."""
        given = checkpoint.network
        if checkpoint.architecture == self.architecture:
            return given
        network = build_network(self.architecture)
        sizes = dataclasses.replace(
            checkpoint.architecture, name=self.architecture.name
        )
        if (
            sizes != self.architecture
            or not isinstance(given, DenseNetwork)
            or not isinstance(network, DenseNetwork)
        ):
            raise CheckpointError(
                f"--start-from {','.join(self.start_from)}: found "
                f"{checkpoint.architecture}, expected {self.architecture}"
            )
        transfer_weights(given, network)
        return network

    @property
    def pace(self) -> PaceConfig:
        """The requested intervals, without validation if there is no data for it."""
        pace = self.config.pace
        if self.data.has_validation:
            return pace
        return dataclasses.replace(pace, validate_every=0)

    def tasks(self) -> Tasks[FeatureNetwork]:
        """Actions of the loop between steps."""
        device = self.runtime.device
        engine = EngineConfig(
            engine="torch",
            precision=self.config.optimization.precision,
            gpu=-1 if device.type == "cpu" else device.index,
        )
        validate = Validator(
            self.method,
            self.data.held_out,
            posed_pairs(self.data.posed.sources, self.config.pairs, self.method),
            self.data.sequences,
            engine,
        )
        return Tasks(
            save=self.save,
            validate=validate,
            keep_best=self.keep_best,
            scored_by=validate.scored_by,
        )

    def save(self, trainer: Trainer[FeatureNetwork]) -> None:
        """Write the current weights, then the state, which a later run resumes from."""
        write_bytes_atomic(self.output / MODEL_NAME, self._checkpoint(trainer))
        write_bytes_atomic(self.output / STATE_NAME, trainer.state().to_bytes())

    def keep_best(self, trainer: Trainer[FeatureNetwork]) -> None:
        """Write the current weights as the best."""
        write_bytes_atomic(self.output / BEST_NAME, self._checkpoint(trainer))

    def trained_on_others(self) -> bool:
        """Whether the images differ from those of the saved weights."""
        path = self.output / MODEL_NAME
        if not path.exists():
            return False
        history = json.loads(load_checkpoint(path).metadata["training"])
        return bool(history["data"] != self.data.summary())

    def save_settings(self) -> None:
        """Write the resolved settings, as YAML that --config takes."""
        lines = (f"{k}: {json.dumps(v)}\n" for k, v in self.config.to_flat().items())
        write_text_atomic(self.output / SETTINGS_NAME, "".join(lines))

    def _checkpoint(self, trainer: Trainer[FeatureNetwork]) -> bytes:
        return serialize_checkpoint(
            trainer.result,
            self.architecture,
            training=self.history(trainer),
            license_name=self.license_name,
        )

    def history(self, trainer: Trainer[FeatureNetwork]) -> dict[str, Any]:
        """Provenance of the weights, for their metadata; the same for equal runs."""
        progress = trainer.progress
        return {
            "settings": dict(trainer.settings),
            "steps": progress.step,
            "total_steps": trainer.total_steps,
            "pairs_per_step": self.pairs_per_step,
            "skipped_steps": progress.skipped,
            "best_step": progress.best_step,
            "best_score": (
                progress.best_score if progress.best_step is not None else None
            ),
            "scored_by": progress.scored_by,
            "data": self.data.summary(),
            **self.method.history(),
        }

    def headline(self, trainer: Trainer[FeatureNetwork]) -> str:
        """A description of the run at its start."""
        step = trainer.progress.step
        network = self.architecture
        return (
            f"{f'resuming at step {step}' if step else 'training'}: {network.name}, "
            f"width {network.width}, {network.descriptor_dim}-d, on "
            f"{self.runtime.device} in {self.runtime.precision}; "
            f"{sum(self.data.items)} photographs or pairs; {trainer.total_steps} steps "
            f"of {self.pairs_per_step} pairs"
        )

    def details(self, trainer: Trainer[FeatureNetwork]) -> dict[str, Any]:
        """The details of the report."""
        history = self.history(trainer)
        return {
            **{k: v for k, v in history.items() if k != "settings"},
            "device": str(self.runtime.device),
            "precision": self.runtime.precision,
            "left_out": [failure.to_text() for failure in self.data.opened.skipped],
            "left_out_of_validation": [
                failure.to_text() for failure in self.data.posed.skipped
            ],
        }


def _runtime(config: TrainConfig, process: Process) -> Runtime:
    gpu = config.pace.gpu
    if gpu is None and process.world_size > 1 and torch.cuda.is_available():
        gpu = process.local_rank
    return resolve_runtime(
        EngineConfig(engine="torch", precision=config.optimization.precision, gpu=gpu)
    )


def _train(
    job: _Job,
    trainer: Trainer[FeatureNetwork],
    workers: int,
    stop: StopRequest,
    announce: Announce,
) -> None:
    """Train to the end; the main process logs, validates and saves."""
    config, process = job.config, job.process
    dataset = PairDataset(
        job.data.opened.sources,
        config.pairs,
        seed=config.optimization.seed,
        steps=trainer.total_steps,
        pairs_per_step=job.pairs_per_step,
        normalize=job.method.normalize,
    )
    loader = make_loader(
        dataset,
        config.optimization.batch_size,
        start_step=trainer.progress.step,
        workers=workers,
        rank=process.rank,
        world_size=process.world_size,
    )
    loader.worker_init_fn = leave_signals_to_parent
    batches = _batches(loader, workers)
    if not process.is_main:
        with closing(batches):
            train(trainer, batches, None, stop)
        return
    job.save_settings()
    try:
        log = RunLog(job.output, trainer.progress.step, announce)
    except OSError as error:
        raise output_error(job.output, error) from error
    supervisor = Supervisor(trainer, job.pace, job.tasks(), log)
    try:
        with closing(batches):
            train(trainer, batches, supervisor, stop)
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"--batch-size {config.optimization.batch_size}: not enough memory on "
            f"{job.runtime.device}; the last saved state remains; reduce it, or "
            "--crop-size"
        ) from error
    finally:
        _announce_gone(job.data.gone, announce)


def _batches(loader: Iterable[Batch], workers: int) -> Generator[Batch, None, None]:
    """Batches; a failure in a worker process becomes a one-line error."""
    iterator = iter(loader)
    try:
        yield from iterator
    except R2D2KaptureError as error:
        name = f"{type(error).__module__}.{type(error).__name__}: "
        last_line = str(error).strip().splitlines()[-1]
        raise type(error)(last_line.removeprefix(name)) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ConfigError(
            f"--workers {workers}: a worker process has died "
            f"({' '.join(str(error).split())}); the last saved state remains; use "
            "fewer, or 0"
        ) from error
    finally:
        # workers ignore signals: alive, they would delay the end of the process
        getattr(iterator, "_shutdown_workers", lambda: None)()


def _announce_skipped(
    title: str, skipped: tuple[Failure, ...], announce: Announce
) -> None:
    for failure in skipped[:NAMED_FAILURES]:
        announce(f"{title}: {failure.to_text()}")
    if len(skipped) > NAMED_FAILURES:
        announce(f"{title}: {len(skipped) - NAMED_FAILURES} more")


def _announce_in_both(names: tuple[str, ...], announce: Announce) -> None:
    if names:
        more = f" and {len(names) - NAMED_FAILURES} more"
        announce(
            "note: used for both training and validation: "
            f"{', '.join(names[:NAMED_FAILURES])}{more * (len(names) > NAMED_FAILURES)}"
            "; accuracy is overestimated"
        )


def _announce_gone(gone: tuple[str, ...], announce: Announce) -> None:
    if gone:
        announce(f"became unusable and were replaced: {len(gone)} images or pairs")
    for name in gone[:NAMED_FAILURES]:
        announce(f"  {name}")
