"""The notebook of the documents runs from its first cell to its last."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs pip install nbclient")
nbclient = pytest.importorskip("nbclient", reason="needs pip install nbclient")
pytest.importorskip("ipykernel", reason="needs pip install ipykernel")

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "quickstart.ipynb"


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # what the kernel keeps of its connection and history stays here too
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    client = nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", ())]
    text = "".join(output.get("text", "") for output in outputs)
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 2
    inliers, matches = re.findall(r"(\d+) of (\d+) matches are inliers", text)[0]
    assert 100 < int(inliers) <= int(matches)
    assert "doubts: 0" in text
    assert int(re.findall(r"(\d+) points of the map agree", text)[0]) > 50
