"""The loop on a network of a few numbers: resume, NaN, stops, saves, the best kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import nn

from r2d2_kapture.config.train import OptimizationConfig, PaceConfig
from r2d2_kapture.errors import ConfigError, DatasetError, OutputError
from r2d2_kapture.training.logs import RunLog
from r2d2_kapture.training.loop import (
    MAX_SKIPPED_IN_A_ROW,
    SCORE,
    Batch,
    Supervisor,
    Tasks,
    Trainer,
    train,
)
from r2d2_kapture.training.state import RunState, read_state
from r2d2_kapture.training.stopping import StopRequest
from tests.scenes.training import rows
from tests.training.toy import ToyNetwork, ToyObjective, toy_batches

OPTIMIZATION = OptimizationConfig(
    learning_rate=0.05, warmup_steps=3, schedule="cosine", average_decay=0.9
)
ToyTrainer = Trainer[ToyNetwork]


def new_trainer(
    total_steps: int, optimization: OptimizationConfig = OPTIMIZATION
) -> ToyTrainer:
    return Trainer(ToyNetwork(), ToyObjective(), optimization, total_steps, {})


@dataclass
class Desk:
    """What the main process does with files, in memory; and a clock set by hand."""

    folder: Path
    scores: Callable[[int], float] = lambda count: 0.0
    saved: list[RunState] = field(default_factory=list)
    best: list[int] = field(default_factory=list)
    validated: list[nn.Module] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    scored_by: str = SCORE
    full: bool = False
    now: float = 0.0

    def tasks(self) -> Tasks[ToyNetwork]:
        return Tasks(
            save=self._save,
            validate=self._validate,
            keep_best=self._keep,
            scored_by=self.scored_by,
        )

    def supervisor(
        self, trainer: ToyTrainer, pace: PaceConfig = PaceConfig(validate_every=0)
    ) -> Supervisor[ToyNetwork]:
        log = RunLog(self.folder, trainer.progress.step, self.lines.append)
        return Supervisor(trainer, pace, self.tasks(), log, lambda: self.now)

    def _save(self, trainer: ToyTrainer) -> None:
        if self.full:
            raise OutputError("state.pt: cannot write: No space left on device")
        (self.folder / "state.pt").write_bytes(trainer.state().to_bytes())
        state = read_state(self.folder / "state.pt")
        assert state is not None
        self.saved.append(state)

    def _validate(self, network: ToyNetwork) -> Mapping[str, float]:
        assert not network.training
        self.validated.append(network)
        return {"mma": 1.0, SCORE: self.scores(len(self.validated))}

    def _keep(self, trainer: ToyTrainer) -> None:
        self.best.append(trainer.progress.step)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def run(trainer: ToyTrainer, desk: Desk, pace: PaceConfig | None = None) -> None:
    pace = pace or PaceConfig(validate_every=0)
    batches = toy_batches(trainer.progress.step)
    train(trainer, batches, desk.supervisor(trainer, pace), StopRequest())


def weights(state: RunState) -> dict[str, torch.Tensor]:
    assert state.average is not None
    return {**state.network, **{f"average.{k}": v for k, v in state.average.items()}}


def assert_equal_states(first: RunState, second: RunState) -> None:
    assert weights(first).keys() == weights(second).keys()
    for name, tensor in weights(first).items():
        assert torch.equal(tensor, weights(second)[name]), name
    moments = [list(s.optimizer["state"].values()) for s in (first, second)]
    for ours, theirs in zip(*moments, strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert first.objective == second.objective
    assert first.progress == second.progress


def test_the_loss_falls_and_the_last_state_is_saved(desk: Desk) -> None:
    trainer = new_trainer(300)
    run(trainer, desk)
    losses = [float(row["loss"]) for row in rows(desk.folder / "log.csv")]
    assert len(losses) == 30
    assert losses[-1] < 0.3 * losses[0]
    assert desk.saved[-1].step == 300


@pytest.mark.parametrize("stop_at", [1, 5, 9])
def test_a_resumed_run_is_bit_for_bit_the_unbroken_one(
    tmp_path: Path, stop_at: int
) -> None:
    unbroken, broken = (Desk(tmp_path / name) for name in ("a", "b"))
    for desk in (unbroken, broken):
        desk.folder.mkdir()
    run(new_trainer(12), unbroken)
    torch.rand(7)  # the global random state plays no role

    first = new_trainer(12)
    stop = StopRequest()

    def batches() -> Iterator[Batch]:
        for number, batch in enumerate(toy_batches()):
            stop.requested = number + 1 == stop_at
            yield batch

    with pytest.raises(KeyboardInterrupt):
        train(first, batches(), broken.supervisor(first), stop)
    assert broken.saved[-1].step == stop_at

    second = new_trainer(12)
    second.restore(broken.saved[-1])
    run(second, broken)
    assert_equal_states(unbroken.saved[-1], broken.saved[-1])


def test_two_runs_are_equal_and_another_seed_differs(tmp_path: Path) -> None:
    states = []
    for seed in (0, 0, 1):
        optimization = OptimizationConfig(seed=seed, average_decay=0.9)
        trainer = new_trainer(3, optimization)
        for batch, _ in zip(toy_batches(), range(3)):
            trainer.step(batch)
        states.append(trainer.state())
    assert_equal_states(states[0], states[1])
    name = "layers.0.weight"
    assert not torch.equal(states[0].network[name], states[2].network[name])


def test_a_step_that_is_not_finite_changes_nothing(desk: Desk) -> None:
    trainer = new_trainer(9)
    good = [next(toy_batches(index)) for index in range(3)]
    for batch in good:
        trainer.step(batch)
    before = trainer.state().to_bytes()
    (desk.folder / "before.pt").write_bytes(before)
    result = trainer.step([good[0][0] * math.nan])
    assert not result.applied
    assert trainer.progress.skipped == trainer.progress.skipped_in_a_row == 1
    assert trainer.progress.step == 4
    kept = read_state(desk.folder / "before.pt")
    assert kept is not None
    for name, tensor in weights(trainer.state()).items():
        assert torch.equal(tensor, weights(kept)[name]), name
    assert trainer.objective.state_dict() == {"observed": 3}
    assert trainer.step(good[1]).applied
    assert (trainer.progress.skipped, trainer.progress.skipped_in_a_row) == (1, 0)


def test_an_infinite_loss_with_finite_slopes_is_skipped_too() -> None:
    class Infinite(ToyObjective):
        def __call__(self, network, batch, generator):  # type: ignore[no-untyped-def]
            terms = super().__call__(network, batch, generator)
            return {**terms, "loss": terms["loss"] + math.inf}

    trainer = Trainer(ToyNetwork(), Infinite(), OPTIMIZATION, 5, {})
    assert not trainer.step(next(toy_batches())).applied


def test_skipped_steps_are_counted_in_the_log(desk: Desk) -> None:
    trainer = new_trainer(20)
    batches = toy_batches(0, poisoned=range(3, 5))
    train(trainer, batches, desk.supervisor(trainer), StopRequest())
    log = rows(desk.folder / "log.csv")
    assert [row["skipped_steps"] for row in log] == ["2.0", "2.0"]
    assert all(math.isfinite(float(row["loss"])) for row in log)


def test_many_in_a_row_stop_the_run_with_a_saved_state(desk: Desk) -> None:
    trainer = new_trainer(1000)
    batches = toy_batches(0, poisoned=range(5, 1000))
    with pytest.raises(ConfigError, match=r"20 steps in a row up to step 25") as e:
        train(trainer, batches, desk.supervisor(trainer), StopRequest())
    assert "\n" not in str(e.value)
    saved = desk.saved[-1]
    assert all(torch.isfinite(tensor).all() for tensor in weights(saved).values())
    # what is saved can be continued
    resumed = new_trainer(30)
    resumed.restore(saved)
    run(resumed, desk)
    assert resumed.progress.skipped == MAX_SKIPPED_IN_A_ROW
    assert desk.saved[-1].step == 30


def test_gradients_are_clipped() -> None:
    trainers = [
        new_trainer(5, OptimizationConfig(gradient_clip=clip)) for clip in (0, 0.01)
    ]
    norms = [t.step(next(toy_batches())).values["gradient_norm"] for t in trainers]
    assert OptimizationConfig().gradient_clip == 0
    assert norms[0] == norms[1] > 0.01
    squared = [
        sum(
            float((p.grad**2).sum())
            for p in t.network.parameters()
            if p.grad is not None
        )
        for t in trainers
    ]
    assert math.sqrt(squared[0]) == pytest.approx(norms[0], rel=1e-5)
    assert math.sqrt(squared[1]) == pytest.approx(0.01, rel=1e-3)


def test_the_average_follows_the_weights_and_is_what_is_exported() -> None:
    trainer = new_trainer(50)
    assert trainer.result is not trainer.network
    seen = []
    for batch, _ in zip(toy_batches(), range(4)):
        trainer.step(batch)
        seen.append(trainer.network.layers[0].weight.detach().clone())
    # the first is copied; update n then keeps (1 + n) / (10 + n)
    expected = seen[0]
    for count, current in enumerate(seen[1:], start=1):
        keep = min(0.9, (1 + count) / (10 + count))
        expected = keep * expected + (1 - keep) * current
    averaged = trainer.result.layers[0].weight
    assert torch.allclose(averaged, expected, atol=1e-7)
    counter = trainer.result.layers[1].num_batches_tracked
    assert counter == trainer.network.layers[1].num_batches_tracked == 4
    trainer = new_trainer(5, OptimizationConfig())
    assert trainer.result is trainer.network


def test_frozen_weights_stay() -> None:
    network = ToyNetwork()
    network.layers[0].requires_grad_(False)
    before = network.layers[0].weight.clone()
    trainer = Trainer(network, ToyObjective(), OPTIMIZATION, 5, {})
    last = network.layers[3].weight.clone()
    trainer.step(next(toy_batches()))
    assert torch.equal(network.layers[0].weight, before)
    assert not torch.equal(network.layers[3].weight, last)


def test_the_best_validation_is_kept(desk: Desk) -> None:
    scores = [0.1, 0.3, 0.2, 0.3, 0.4]  # at steps 0, 2, 4, 6 and the last, 7
    desk.scores = lambda count: scores[count - 1]
    trainer = new_trainer(7)
    run(trainer, desk, PaceConfig(validate_every=2))
    assert desk.best == [0, 2, 7]
    assert (trainer.progress.best_step, trainer.progress.best_score) == (7, 0.4)
    assert all(network is trainer.result for network in desk.validated)
    validated = rows(desk.folder / "validation.csv")
    assert [row["step"] for row in validated] == list("02467")


def test_a_resumed_run_knows_its_best(desk: Desk) -> None:
    desk.scores = lambda count: 0.5
    trainer = new_trainer(4)
    run(trainer, desk, PaceConfig(validate_every=2))
    resumed = new_trainer(8)
    resumed.restore(desk.saved[-1])
    desk.scores = lambda count: 0.4
    run(resumed, desk, PaceConfig(validate_every=2))
    assert desk.best == [0]


@pytest.mark.parametrize(
    ("before", "after", "best"),
    [
        ("mma", "mma", (4, 0.5)),
        ("mma", "posed_loss", (6, -0.9)),
        (None, "posed_loss", (4, 0.5)),
    ],
)
def test_the_best_begins_again_where_another_kind_of_score_tells_it(
    desk: Desk, before: str | None, after: str, best: tuple[int, float]
) -> None:
    desk.scores = lambda count: 0.1 * count + 0.2  # 0.5 at step 4
    desk.scored_by = "mma"
    run(new_trainer(4), desk, PaceConfig(validate_every=2))
    state = desk.saved[-1]
    assert state.progress["scored_by"] == "mma"
    if before is None:  # as a version wrote it that knew of no kinds
        state.progress.pop("scored_by")
    resumed = new_trainer(8)
    resumed.restore(state)
    desk.scored_by, desk.lines = after, []
    desk.scores = lambda count: -0.9 if count == 4 else -1.0
    run(resumed, desk, PaceConfig(validate_every=2))
    assert (resumed.progress.best_step, resumed.progress.best_score) == best
    told = [line for line in desk.lines if "best of step 4 no longer counts" in line]
    assert len(told) == (best[0] != 4)


@pytest.mark.parametrize("full", [False, True])
def test_a_validation_that_fails_loses_no_step(desk: Desk, full: bool) -> None:
    def fail(count: int) -> float:
        desk.full = full
        if count == 2:
            raise DatasetError("the depth maps have gone")
        return 0.0

    desk.scores = fail
    trainer = new_trainer(8)
    with pytest.raises(DatasetError, match="have gone"):
        run(trainer, desk, PaceConfig(validate_every=3))
    assert [state.step for state in desk.saved] == ([] if full else [3])


def test_states_are_saved_every_few_steps_and_at_the_end_or_the_disk_is_full(
    desk: Desk,
) -> None:
    run(new_trainer(11), desk, PaceConfig(validate_every=0, save_every=4))
    assert [state.step for state in desk.saved] == [4, 8, 11]
    desk.full = True
    with pytest.raises(OutputError, match="No space left"):
        run(new_trainer(3), desk)


def slow_batches(desk: Desk, seconds: float) -> Iterator[Batch]:
    for batch in toy_batches():
        desk.now += seconds
        yield batch


def test_states_are_saved_every_few_minutes(desk: Desk) -> None:
    trainer = new_trainer(9)
    pace = PaceConfig(validate_every=0, save_minutes=4)
    supervisor = desk.supervisor(trainer, pace)
    train(trainer, slow_batches(desk, 61.0), supervisor, StopRequest())
    assert [state.step for state in desk.saved] == [4, 8, 9]


def test_a_line_a_minute(desk: Desk) -> None:
    trainer = new_trainer(9)
    supervisor, batches = desk.supervisor(trainer), slow_batches(desk, 15.0)
    train(trainer, batches, supervisor, StopRequest(), lambda: desk.now)
    assert [line.split("  ")[0] for line in desk.lines] == ["step 4/9", "step 8/9"]
    assert "data_wait 1  15 s/step" in desk.lines[0]
    assert "loss " in desk.lines[0] and "learning_rate " in desk.lines[0]


def test_a_full_disk_is_reported_and_the_training_continues(desk: Desk) -> None:
    trainer = new_trainer(9)

    def batches() -> Iterator[Batch]:
        for number, batch in enumerate(toy_batches()):
            desk.full = 4 <= number < 7
            yield batch

    pace = PaceConfig(validate_every=0, save_every=3)
    train(trainer, batches(), desk.supervisor(trainer, pace), StopRequest())
    assert [state.step for state in desk.saved] == [3, 9]
    assert len(desk.lines) == 1
    assert "No space left" in desk.lines[0] and "training continues" in desk.lines[0]


def test_a_stop_finishes_the_step_and_saves(desk: Desk) -> None:
    stop = StopRequest()
    stop.handle(2, None)
    assert stop.requested
    with pytest.raises(KeyboardInterrupt):  # the second signal: at once
        stop.handle(2, None)
    trainer = new_trainer(9)
    with pytest.raises(KeyboardInterrupt):
        train(trainer, toy_batches(), desk.supervisor(trainer), stop)
    assert [state.step for state in desk.saved] == [1]
    trainer = new_trainer(1)  # in the last step it is an end
    train(trainer, toy_batches(), desk.supervisor(trainer), stop)
    assert [state.step for state in desk.saved] == [1, 1]
