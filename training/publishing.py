"""From a trained model to a checkpoint of the store, published only if it scores as the trainer does."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

from safetensors.torch import save_file

from agentprm.errors import AgentPRMError
from model_store.format.bases import AdapterBase, add_base, find_base
from model_store.format.chat import CHAT_TEMPLATE
from model_store.format.manifest import Manifest
from model_store.format.store import ADAPTER, Checkpoint, Store
from model_store.network.heads import LinearHead
from model_store.network.model import RewardModel, load_model, save_model, score_rows
from model_store.text.chat_renderer import ReadTokens
from training.base_model import BaseText
from training.trainers.adapter import merge_adapter, save_adapter

TOLERANCE: Final = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-2}
"""How far a promise of the checkpoint may be from the trainer's, by the backbone's dtype."""
_TEXT_FILES: Final = ("tokenizer.json", CHAT_TEMPLATE)
Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class Release:
    """Name and version of a new checkpoint, and what its manifest says of it.

    ``training`` and ``evaluation`` are any JSON, ``files`` names and texts of further files, such as ``report.html``.
    """

    name: str
    version: str
    training: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    files: Mapping[str, str] = field(default_factory=dict)


def publish(
    model: RewardModel,
    text: BaseText,
    store: Store,
    release: Release,
    samples: Sequence[ReadTokens],
    *,
    as_adapter: bool = False,
) -> Checkpoint:
    """Publishes a trained model with the text of its base.

    Its adapters are merged, in place; or with ``as_adapter`` they are published alone, beside their base in the store.
    What is written is loaded again as the service loads it, and must give ``samples`` the promises of ``model``.
    Readers of the store see all of it or nothing, also if the disk fills.

    Raises:
        AgentPRMError: the version is there already, or the written checkpoint scores otherwise.
        OSError: the disk is full.
    """
    store.free_path(release.name, release.version)
    if as_adapter and text.manifest.adapter_of:
        raise AgentPRMError(f"{text.source} is an adapter itself; publish what was trained from it merged")
    store.root.mkdir(parents=True, exist_ok=True)
    expected = _raw_scores(model, samples)
    base = AdapterBase(text.source, add_base(store.root, text.checkpoint.path)) if as_adapter else None
    manifest = replace(_manifest(text, release), dtype=_dtype(model), adapter_of=base)
    with TemporaryDirectory(dir=store.root, prefix=".train-") as directory:
        staged = Path(directory)
        if as_adapter:
            _write_adapter(model, staged)
        else:
            merge_adapter(model)
            save_model(model, staged)
        _write_texts(text, staged, release.files)
        base_path = find_base(store.root, manifest.reference, base) if base else None
        _refuse_other_scores(Checkpoint(staged, manifest, base_path), samples, expected)
        return store.publish(staged, manifest)


def _manifest(text: BaseText, release: Release) -> Manifest:
    return replace(
        text.manifest,
        name=release.name,
        version=release.version,
        base_model=text.source,
        training=dict(release.training),
        evaluation=dict(release.evaluation),
        check=None,
        digest="",
    )


def _write_adapter(model: RewardModel, staged: Path) -> None:
    save_adapter(model.backbone, staged / ADAPTER)
    assert isinstance(model.head, LinearHead), "training has a head of one row"
    save_file({"score.weight": model.head.weight_H.detach()[None].contiguous()}, staged / "head.safetensors")


def _write_texts(text: BaseText, staged: Path, files: Mapping[str, str]) -> None:
    for name in _TEXT_FILES:
        if (file := text.checkpoint.path / name).exists():
            shutil.copyfile(file, staged / name)
    for name, content in files.items():
        (staged / name).write_text(content, encoding="utf-8")


def _raw_scores(model: RewardModel, samples: Sequence[ReadTokens]) -> list[list[float]]:
    training = model.training
    scores = score_rows(model.eval(), [sample.token_ids for sample in samples], [sample.reads for sample in samples])
    model.train(training)
    return scores


def _refuse_other_scores(checkpoint: Checkpoint, samples: Sequence[ReadTokens], expected: list[list[float]]) -> None:
    manifest = checkpoint.manifest
    promise = manifest.score.promise
    served = _raw_scores(load_model(checkpoint, "cpu", "auto"), samples)
    for row, (ours, theirs) in enumerate(zip(expected, served, strict=True)):
        for step, (raw, again) in enumerate(zip(ours, theirs, strict=True)):
            difference = abs(promise(raw) - promise(again))
            if not difference <= TOLERANCE[manifest.dtype]:  # NaN is a difference too
                raise AgentPRMError(
                    f"{manifest.reference} is not published: written and loaded again, it gives step {step} of sample "
                    f"{row} a promise that differs by {difference:.2g} from the trainer's"
                )


def _dtype(model: RewardModel) -> Dtype:
    name = str(next(model.backbone.parameters()).dtype).removeprefix("torch.")
    found: dict[str, Dtype] = {"float32": "float32", "bfloat16": "bfloat16", "float16": "float16"}
    return found[name]
