"""The commands of all benchmarks as a user types them: what they share."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from r2d2_kapture.cli import hpatches, pair_poses
from r2d2_kapture.synthetic.dataset import write_room_dataset
from tests.commands import one_error_line, work_in
from tests.scenes.images import write_crops

pytestmark = pytest.mark.usefixtures("empty_pictures")

EXTRACTION = (
    "--reliability-thr 0 --repeatability-thr 0 --min-size 64 --gpu -1 --precision fp32 "
    "--top-k 40 --worst-pairs 0"
).split()


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command with its input.

    Attributes:
        name: of the benchmark.
        main: entry point.
        inputs: flags of the items.
        suffix: of files of results.
        work: what a report counts.
        column: a title of its table.
        missing: what is said without any input.
    """

    name: str
    main: Callable[[list[str]], int]
    inputs: list[str]
    suffix: str
    work: str
    column: str
    missing: str


def sequences(folder: Path) -> Command:
    for seed, name in enumerate(("v_wall", "i_lamp")):
        write_crops(folder / name, seed)
    return Command(
        name="hpatches",
        main=hpatches.main,
        inputs=["--root", str(folder)],
        suffix=".npz",
        work="2 sequences",
        column="MMA@3",
        missing="neither --root (a folder of sequences to evaluate) nor --results",
    )


def posed_pairs(folder: Path) -> Command:
    """Three photographs of the room with their true poses."""
    room = write_room_dataset(
        folder, mapping_images=3, query_images=1, image_size=(96, 72)
    )
    return Command(
        name="pair_poses",
        main=pair_poses.main,
        inputs=["--kapture-root", str(room.mapping)],
        suffix=".poses.json",
        work="3 pairs",
        column="AUC@10",
        missing="neither --gt or --kapture-root (images to evaluate) nor --results",
    )


@pytest.fixture(scope="module", params=[sequences, posed_pairs])
def command(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Command:
    make: Callable[[Path], Command] = request.param
    return make(tmp_path_factory.mktemp("inputs") / "root")


@pytest.fixture
def typed(command: Command, tmp_path: Path, checkpoint_path: Path) -> list[str]:
    output = ["--output", str(tmp_path / "out"), "--model", str(checkpoint_path)]
    return [*command.inputs, *output, *EXTRACTION]


def table_of(capsys: pytest.CaptureFixture[str], command: Command) -> str:
    return capsys.readouterr().out.split(f"\n{command.name}: ")[0].strip()


def test_table_files_and_resume(
    command: Command,
    typed: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.main(typed) == 0
    out = capsys.readouterr().out
    assert command.column in out and "left out" not in out  # none is
    assert work_in(out, command.name) == command.work
    tables = {f"{command.name}.{kind}" for kind in ("md", "csv", "json")}
    names = {path.name for path in (tmp_path / "out").iterdir()}
    ours = {f"tiny{command.suffix}", "tiny", f"{command.name}_report.json", ".lock"}
    assert names - {"mma.png"} == tables | ours
    assert ("mma.png" in names) == (command.name == "hpatches")
    assert "top_k: 40" in (tmp_path / "out/tiny/extract_config.yaml").read_text()
    assert command.main(typed) == 0
    work = work_in(capsys.readouterr().out, command.name)
    assert work == f"{command.work}, already done"
    assert command.main([*typed, "--top-k", "30"]) == 2
    assert "top_k: 40, not 30" in capsys.readouterr().err


@pytest.mark.draws
def test_results_are_shown_again(
    command: Command,
    typed: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # a label like the name of the tables overwrites nothing
    assert command.main([*typed, "--label", command.name]) == 0
    table = table_of(capsys, command)
    assert command.name in table
    results = ["--results", str(tmp_path / "out" / f"{command.name}{command.suffix}")]
    # own results among others are shown once
    assert command.main([*typed, "--label", command.name, *results]) == 0
    assert table_of(capsys, command) == table
    plot = tmp_path / "plots" / "curves.png"
    assert command.main([*results, "--plot", str(plot)]) == 0
    assert table_of(capsys, command) == table
    assert min(Image.open(plot).size) > 300
    tables = tmp_path / "tables"
    assert command.main([*results, "--output", str(tables)]) == 0
    written = {path.name for path in tables.iterdir()} - {"mma.png"}
    assert written == {f"{command.name}.{kind}" for kind in ("md", "csv", "json")}


def test_a_sweep_is_one_table(
    command: Command,
    typed: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sweeps = ["--sweep", "subpixel=true,false", "--sweep", "top_k=20,30"]
    assert command.main([*typed, *sweeps]) == 0
    out = capsys.readouterr().out
    for label in ("true top_k=20", "true top_k=30", "false top_k=20"):
        assert f"tiny subpixel={label}" in out
    count, unit = command.work.split()
    assert work_in(out, command.name) == f"{4 * int(count)} {unit}"
    folder = tmp_path / "out" / "tiny_subpixel=false_top_k=20"
    settings = (folder / "extract_config.yaml").read_text()
    assert "subpixel: false\n" in settings and "top_k: 20\n" in settings
    labels = json.loads((tmp_path / "out" / f"{command.name}.json").read_text())
    assert len({one["label"] for one in labels}) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("{inputs}", "--output: missing"),
        ("--results /no.npz", "/no.npz"),
        ("{inputs} --output {out} --results /no.npz", "/no.npz"),
        ("{inputs} --output {out} --seed -1", "--seed"),
        ("{inputs} --output {out} --ransac-error 0", "--ransac-error"),
        ("{inputs} --output {out} --worst-pairs -1", "--worst-pairs"),
        (
            "{inputs} --output {out} --plot mma.jpx",
            "found '.jpx', expected a file with the suffix .png, .pdf, .svg",
        ),
        ("{inputs} --output {out} --plot {folder}", "found a folder"),
        (
            "{inputs} --output {out} --features-suffix .d2-net",
            ".d2-net: found no such file",
        ),
        ("{inputs} --output {out} --features-h5 /none.h5", "/none.h5"),
        ("{inputs} --output {out} --sweep top_k", "key=a,b,c"),
        (
            "{inputs} --output {out} --sweep colour=1,2",
            "--sweep colour=1,2: found the key colour, expected one of model, ",
        ),
        ("{inputs} --output {out} --sweep seed=0,1", "found the key seed"),
        ("{inputs} --output {out} --sweep top-k=1,many", "--sweep top_k=many: "),
        ("{inputs} --output {out} --sweep subpixel=1.5", "--sweep subpixel=1.5: "),
        ("{inputs} --output {out} --model /no.pt", "no such file"),
        (
            "{inputs} --output {out} --keypoint-origin corner",
            "--keypoint-origin corner: describes existing features",
        ),
        (
            "{inputs} --output {out} --features-suffix a --features-h5 {folder}",
            "--features-suffix and --features-h5: expected one of them",
        ),
        (
            "{inputs} --output {out} --features-suffix a --sweep top_k=1",
            "--sweep: describes an extraction, but --features-suffix uses",
        ),
        (
            "{inputs} --output {out} --features-suffix a --top-k 9",
            "--top-k: describes an extraction, but --features-suffix uses",
        ),
        (
            "{inputs} --output {out} --model b --no-relu --features-h5 {folder}",
            "--model, --no-relu: describes an extraction, but --features-h5 uses",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    command: Command,
    tmp_path: Path,
    arguments: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    inputs = " ".join(command.inputs)
    out = tmp_path / "out"
    typed = arguments.format(inputs=inputs, out=out, folder=command.inputs[1]).split()
    assert command.main(typed) == 2
    assert message in one_error_line(capsys)
    assert not out.exists(), "the work had begun"


def test_inputs_or_results_are_needed_and_exist(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([]) == 2
    assert command.missing in one_error_line(capsys)
    flag = command.inputs[0]
    assert command.main([flag, "/nowhere", "--output", str(tmp_path / "out")]) == 2
    assert f"{flag} /nowhere: " in one_error_line(capsys)
