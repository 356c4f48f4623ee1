"""The example notebook, run in a Jupyter kernel, which has its own event loop."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from awaithumans_core.clock import SystemClock
from awaithumans_core.testing import FakeHumans

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"


def shown(cell: Any) -> str:
    """Return all output of a cell."""
    return "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell["outputs"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning:zmq", "ignore::DeprecationWarning:jupyter_client")
async def test_notebook_cells_continue_with_their_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sync, async and batch cells each wait for a person and continue with the answer."""
    humans = FakeHumans(clock=SystemClock())
    humans.answer("message 2", {"spam": False}).after(0.5).once()
    humans.answer("Is message", {"spam": True}).after(0.5)
    with humans.serving() as url:
        monkeypatch.setenv("AWAITHUMANS_URL", url)
        monkeypatch.setenv("AWAITHUMANS_ADMIN_API_TOKEN", humans.token)
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
        notebook: Any = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
        await NotebookClient(notebook, timeout=180).async_execute()
    cells = {cell["id"]: shown(cell) for cell in notebook["cells"] if cell["cell_type"] == "code"}
    assert "Label(spam=True)" in cells["sync"]
    assert "Label(spam=False)" in cells["async"]
    assert f"waiting for a person at {url}/task?id=" in cells["sync"]
    assert "\x1b" not in cells["sync"]
    assert "30 of 30 are spam" in cells["batch"]
