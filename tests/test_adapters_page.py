"""Every block of code in docs/adapters.md runs as it stands, from top to bottom."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "adapters.md"
BLOCKS = re.findall(r"## ([^\n]*)\n|```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
NEEDS = {
    "scikit-learn": ("sklearn", "skops"),
    "Lightning": ("lightning",),
    "The Hugging Face Hub": ("huggingface_hub",),
    "ONNX": ("onnx", "onnxscript", "onnxruntime"),
    "Weights & Biases, MLflow": ("wandb", "mlflow", "alembic"),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_page_on_adapters_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")  # as it is by default
    monkeypatch.setenv("WANDB_SILENT", "true")
    names: dict[str, object] = {}
    section = ""
    for title, code in BLOCKS:
        section = title or section
        if code:
            for library in NEEDS[section]:
                pytest.importorskip(library)
            exec(compile(code, str(PAGE), "exec"), names)
    assert section == "Notebooks"
