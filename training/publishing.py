"""From a trained model to a checkpoint of the store, published only if it scores as the trainer does."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

from agentprm.errors import AgentPRMError
from model_store.format.chat import CHAT_TEMPLATE
from model_store.format.store import Checkpoint, Store
from model_store.network.model import RewardModel, load_model, save_model, score_rows
from model_store.text.chat_renderer import ReadTokens
from training.base_model import BaseText

TOLERANCE: Final = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-2}
"""How far a promise of the checkpoint may be from the trainer's, by the backbone's dtype."""
_TEXT_FILES: Final = ("tokenizer.json", CHAT_TEMPLATE)
Dtype = Literal["float32", "bfloat16", "float16"]


def publish(
    model: RewardModel,
    text: BaseText,
    store: Store,
    *,
    name: str,
    version: str,
    training: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    samples: Sequence[ReadTokens],
    files: Mapping[str, str] | None = None,
) -> Checkpoint:
    """Publishes a trained model, adapters merged, with the text of its base.

    It is written, loaded again as the service loads it, and must give ``samples`` the promises of ``model``. Readers of
    the store see all of it or nothing, also if the disk fills.

    ``training`` and ``evaluation`` are any JSON; ``files`` are names and texts of further files, such as ``report.html``.

    Raises:
        AgentPRMError: the version is there already, or the written checkpoint scores otherwise.
        OSError: the disk is full.
    """
    store.free_path(name, version)
    store.root.mkdir(parents=True, exist_ok=True)
    dtype = _dtype(model)
    manifest = replace(
        text.manifest,
        name=name,
        version=version,
        base_model=text.source,
        dtype=dtype,
        training=dict(training),
        evaluation=dict(evaluation),
        check=None,
        digest="",
    )
    with TemporaryDirectory(dir=store.root, prefix=".train-") as directory:
        staged = Path(directory)
        _write(model, text, staged, files or {})
        _refuse_other_scores(model, Checkpoint(staged, manifest), samples)
        return store.publish(staged, manifest)


def _write(model: RewardModel, text: BaseText, staged: Path, files: Mapping[str, str]) -> None:
    save_model(model, staged)
    for name in _TEXT_FILES:
        if (file := text.checkpoint.path / name).exists():
            shutil.copyfile(file, staged / name)
    for name, content in files.items():
        (staged / name).write_text(content, encoding="utf-8")


def _refuse_other_scores(model: RewardModel, checkpoint: Checkpoint, samples: Sequence[ReadTokens]) -> None:
    manifest = checkpoint.manifest
    token_ids = [sample.token_ids for sample in samples]
    reads = [sample.reads for sample in samples]
    served = load_model(checkpoint, "cpu", "auto").to(next(model.parameters()).device)
    was_training = model.training
    expected = score_rows(model.eval(), token_ids, reads)
    model.train(was_training)
    for row, (ours, theirs) in enumerate(zip(expected, score_rows(served, token_ids, reads), strict=True)):
        for step, (raw, again) in enumerate(zip(ours, theirs, strict=True)):
            difference = abs(manifest.score.promise(raw) - manifest.score.promise(again))
            if not difference <= TOLERANCE[manifest.dtype]:  # NaN is a difference too
                raise AgentPRMError(
                    f"{manifest.reference} is not published: written and loaded again, it gives step {step} of sample "
                    f"{row} a promise that differs by {difference:.2g} from the trainer's"
                )


def _dtype(model: RewardModel) -> Dtype:
    name = str(next(model.backbone.parameters()).dtype).removeprefix("torch.")
    found: dict[str, Dtype] = {"float32": "float32", "bfloat16": "bfloat16", "float16": "float16"}
    return found[name]
