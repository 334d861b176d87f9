"""Trained nets on the Hugging Face Hub: the extra `hub`.

What is shared of a run is what makes its net again: settings, the values that were used, the best weights in
safetensors, the result, and a card. No path of the machine that it was trained on is among them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from dualprop.errors import CheckpointError
from dualprop.extras import extra
from dualprop.nets.net import Net
from dualprop.runs.documents import write_json, write_text
from dualprop.runs.folder import Run, check_free
from dualprop.training.weights import BEST, load_net

with extra("hub"):
    from huggingface_hub import HfApi, snapshot_download

KEPT = ("settings.json", "resolved.json", "result.json", BEST)
"""Files of a run that are shared."""

PLACES = ("data_root", "init_from")
"""Settings that say where something was on the machine of the run."""


def save_pretrained(run: str | Path, folder: str | Path) -> Path:
    """Write what is shared of a run, and a card.

    Args:
        run: the run folder, finished.
        folder: what is made.

    Returns:
        The folder.

    Raises:
        DualpropError: if the run is none or not finished, or there is something at `folder`.
    """
    opened, made = Run.open(Path(run)), check_free(Path(folder), "choose another folder")
    settings, result = opened.settings.as_dict(), opened.result
    if result is None:
        raise CheckpointError(f"{opened.path}: not finished; dualprop train --resume goes on with it")
    settings |= dict.fromkeys(PLACES)
    if settings["data"].startswith("folder:"):
        settings["data"] = f"folder:{Path(settings['data']).name}"
    made.mkdir(parents=True)
    write_json(made / "settings.json", settings)
    write_json(made / "resolved.json", opened.resolved or {})
    write_json(made / "result.json", {**result, "run": made.name})
    shutil.copyfile(opened.path / BEST, made / BEST)
    write_text(made / "README.md", _card(settings, result))
    return made


def push_to_hub(run: str | Path, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
    """Upload a run's net.

    Args:
        run: the run folder, finished.
        repo_id: where to, as "user/name"; it is made if it is not there.
        private: whether only its owner may see it.
        token: of the Hub; by default that of `hf auth login`.

    Returns:
        The address of the commit.

    Raises:
        DualpropError: if the run is none or not finished.
    """
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        saved = save_pretrained(run, Path(folder) / "run")
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=saved, commit_message="dualprop"))


def from_pretrained(name: str | Path, *, net: Net | None = None, **options: Any) -> Net:
    """The net of a run with its best weights, from the Hub or a folder.

    Args:
        name: "user/name" on the Hub, or a folder that `save_pretrained` has made.
        net: one's own, where the run was started with it; it is given the weights.
        options: of `huggingface_hub.snapshot_download`, for example `revision`, `token` or `local_files_only`.

    Raises:
        DualpropError: if there is no run in it, or its weights are damaged or another net's.
    """
    folder = Path(name)
    if not folder.is_dir():
        folder = Path(snapshot_download(str(name), allow_patterns=list(KEPT), **options))
    return load_net(folder, net)


def _card(settings: dict[str, Any], result: dict[str, Any]) -> str:
    """What the Hub shows of it."""
    accuracy = result["test_accuracy"]
    scored = f"loss {result['test_loss']:.4f}" if accuracy is None else f"accuracy {accuracy:.2%}"
    own = json.dumps(settings["rule_settings"])
    return f"""---
library_name: dualprop
tags: [dualprop, dual-propagation, {settings["rule"]}]
---

# {settings["net"]} on {settings["data"]}, trained by {settings["rule"]}

Test {scored} (one run, seed {settings["seed"]}; settings of the rule: `{own}`).

```python
from dualprop.hub import from_pretrained

net = from_pretrained("USER/NAME")  # a torch.nn.Module
```
"""
