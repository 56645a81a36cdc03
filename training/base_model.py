"""Base models of training: a causal language model, and the renderer that its checkpoint will be served with.

A source is a directory, ``owner/name@commit`` of the hub, or ``name@version`` of a store, whose training goes on then.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from agentprm.errors import AgentPRMError
from model_store.errors import CheckpointError
from model_store.format.manifest import Manifest
from model_store.format.store import MANIFEST, Checkpoint, Store
from model_store.importers.base import stage_base
from model_store.importers.hub import find_source, pinned
from model_store.network import model as network
from model_store.network.heads import LinearHead
from model_store.network.model import RewardModel, load_model
from model_store.text.chat_renderer import ChatRenderer
from model_store.text.loading import renderer_of
from model_store.text.renderer import Renderer


@dataclass(frozen=True, slots=True)
class BaseText:
    """How a base renders histories. ``source`` names it; one of the hub is pinned to its commit.

    ``checkpoint`` is a directory without weights and the manifest that a checkpoint trained from it begins with.
    """

    source: str
    checkpoint: Checkpoint
    renderer: Renderer | ChatRenderer

    @property
    def manifest(self) -> Manifest:
        return self.checkpoint.manifest

    @property
    def context_length(self) -> int:
        """The most tokens of a history."""
        return self.checkpoint.manifest.context_length


@dataclass(frozen=True, slots=True)
class Base:
    """A model to train, in train mode, and its text; a language model's head starts at zero."""

    model: RewardModel
    text: BaseText


@contextmanager
def base_text(source: str, store: Store | None = None, *, context_length: int | None = None) -> Iterator[BaseText]:
    """How a base renders, without its weights, in a directory that ends with the context.

    Raises:
        AgentPRMError: there is no such base, or its files cannot be used; the sentence says what to do.
    """
    with TemporaryDirectory(prefix="agentprm-base-") as directory:
        into = Path(directory) / "base"
        into.mkdir()
        yield _text(source, store, into, context_length, weights=False)


def load_base(
    source: str, into: Path, store: Store | None = None, *, dtype: str, context_length: int | None = None
) -> Base:
    """The model and the text of a base, laid out in the new directory ``into``; ``dtype`` is the backbone's.

    Raises:
        AgentPRMError: there is no such base, or its files cannot be used; the sentence says what to do.
    """
    into.mkdir(parents=True)
    text = _text(source, store, into, context_length, weights=True)
    if (into / MANIFEST).exists():
        model = load_model(text.checkpoint, "cpu", dtype).train().requires_grad_(requires_grad=True)
        _refuse_other_head(model, text)
    else:
        model = network.load_base(into, dtype)
    text.renderer.refuse_too_few_rows(model.vocabulary)
    return Base(model, text)


def _text(source: str, store: Store | None, into: Path, context_length: int | None, *, weights: bool) -> BaseText:
    if not Path(source).is_dir() and "/" not in source:
        return _published(source, store, into)
    source = pinned(source)
    path = find_source(source, weights=weights)
    checkpoint = stage_base(path, into, context_length=context_length, weights=weights)
    return BaseText(source, checkpoint, renderer_of(checkpoint))


def _published(reference: str, store: Store | None, into: Path) -> BaseText:
    """A checkpoint of a store, whose text, head and context are what they are."""
    if store is None:
        raise AgentPRMError(f"{reference!r} is no directory and no owner/name@commit; a name@version needs --store")
    found = store.resolve(reference)
    shutil.copytree(found.path, into, dirs_exist_ok=True)
    checkpoint = Checkpoint(into, found.manifest, found.base)
    return BaseText(found.manifest.reference, checkpoint, renderer_of(checkpoint))


def _refuse_other_head(model: RewardModel, text: BaseText) -> None:
    score = text.manifest.score
    plain = (score.activation, score.direction, score.calibration) == ("sigmoid", "higher", None)
    if not (plain and isinstance(model.head, LinearHead) and model.head.bias is None):
        raise CheckpointError(
            f"{text.source} has a head or a calibration of its own; training goes on from one row and a sigmoid"
        )
