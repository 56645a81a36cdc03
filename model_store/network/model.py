"""A causal transformer and the head over it: token ids to one raw score per token.

Axes: B batch, T tokens, H hidden.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.distributed.configuration_utils import DistributedConfig
from transformers.utils import logging
from transformers.utils.import_utils import is_accelerate_available

from model_store.errors import CheckpointCorrupt, CheckpointError, one_line
from model_store.format.store import ADAPTER, REFERENCE, Checkpoint
from model_store.network.head_loading import load_head, vocabulary_head
from model_store.network.heads import LinearHead
from model_store.network.log_ratio import LogRatioHead
from model_store.network.lora import Adapter


class RewardModel(nn.Module):
    """A backbone of any Hugging Face causal family, and a head that gives each token a raw score.

    ``unread`` names the tensors of the files that the backbone's class does not read, heads among them.
    """

    unread: tuple[str, ...] = ()

    def __init__(self, backbone: PreTrainedModel, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    @property
    def vocabulary(self) -> int:
        """Rows of the smallest embedding; token ids must be below it."""
        embeddings: list[Any] = [backbone.get_input_embeddings() for backbone in self.backbones()]
        return min(int(embedding.weight.shape[0]) for embedding in embeddings)

    def forward(self, token_ids_BT: Tensor, **options: Any) -> Tensor:
        """Raw score at every token, float32 [B, T]; ``options`` go to the backbone and its attention function.

        Attention is causal, so padding on the right of a row changes no score and needs no mask.
        """
        raw_BT: Tensor = self.head(self.hidden(token_ids_BT, **options))
        return raw_BT

    def hidden(self, token_ids_BT: Tensor, **options: Any) -> Tensor:
        """The backbone's last hidden states [B, T, H], final norm applied."""
        hidden_BTH: Tensor = self.backbone(input_ids=token_ids_BT, use_cache=False, **options).last_hidden_state
        return hidden_BTH

    def backbones(self) -> list[PreTrainedModel]:
        """Every transformer that a forward runs."""
        return [self.backbone]


class RatioModel(RewardModel):
    """A policy, and a head that compares it with a reference model and therefore reads the tokens too."""

    head: LogRatioHead

    def forward(self, token_ids_BT: Tensor, **options: Any) -> Tensor:
        raw_BT: Tensor = self.head(self.hidden(token_ids_BT, **options), token_ids_BT)
        return raw_BT

    def backbones(self) -> list[PreTrainedModel]:
        return [self.backbone, self.head.backbone]


@torch.inference_mode()
def score_rows(
    model: RewardModel, token_ids: Sequence[Sequence[int]], reads: Sequence[Sequence[int]], *, row_tokens: int = 4096
) -> list[list[float]]:
    """Raw scores of each row at its read positions: the plain padded forward that faster paths must equal.

    Rows of similar length share a forward of at most ``row_tokens`` padded tokens (a longer row goes alone).
    """
    scores: list[list[float]] = [[] for _ in token_ids]
    device = next(model.parameters()).device
    for group in _by_length([len(row) for row in token_ids], row_tokens):
        rows = [torch.tensor(token_ids[index]) for index in group]
        raw_BT = model(nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)).cpu()
        for raw_T, index in zip(raw_BT, group, strict=True):
            scores[index] = raw_T[torch.tensor(reads[index], dtype=torch.long)].tolist()
    return scores


def padding_tokens(lengths: Sequence[int], row_tokens: int) -> int:
    """Padding tokens that ``score_rows`` computes for rows of these lengths."""
    groups = ([lengths[index] for index in group] for group in _by_length(lengths, row_tokens))
    return sum(len(group) * max(group) - sum(group) for group in groups)


def _by_length(lengths: Sequence[int], row_tokens: int) -> Iterator[list[int]]:
    """Indices in groups, shortest first, each at most ``row_tokens`` when padded to its longest."""
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and lengths[index] * (len(group) + 1) > row_tokens:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def new_model(config: PreTrainedConfig, seed: int) -> RewardModel:
    """A randomly initialised model; its head starts at zero, so every promise starts at the activation's middle."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = AutoModel.from_config(config)
    return RewardModel(backbone, LinearHead(torch.zeros(config.hidden_size)))


def load_base(path: Path, dtype: str) -> RewardModel:
    """The language model in a directory, to be trained: a head that starts at zero over it, in train mode.

    Raises:
        CheckpointError: weights are missing, of the wrong shape, unreadable or need code of their own.
    """
    try:
        backbone, unread = _read_backbone(path, getattr(torch, dtype), split_over=1)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointCorrupt(f"{path} cannot be loaded: {one_line(str(error), 500)}") from error
    model = RewardModel(backbone, LinearHead(torch.zeros(backbone.config.hidden_size)))
    model.unread = unread
    return model.train()


def load_model(checkpoint: Checkpoint, device: str, dtype: str, split_over: int = 1) -> RewardModel:
    """The model of a resolved checkpoint, in eval mode; ``dtype`` is the backbone's ("auto": the manifest's).

    ``split_over`` is the number of processes in torch's default process group that share the model. Transformers'
    tensor-parallel plan of the family splits the backbone's layers over them, and all must run every forward.

    Raises:
        CheckpointError: weights are missing, of the wrong shape, unreadable, need code of their own or cannot be split.
    """
    manifest = checkpoint.manifest
    try:
        model = _read_model(checkpoint, getattr(torch, manifest.dtype if dtype == "auto" else dtype), split_over)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointCorrupt(f"{manifest.reference} cannot be loaded: {one_line(str(error), 500)}") from error
    configs = [backbone.config for backbone in model.backbones()]
    context = min(getattr(config, "max_position_embeddings", manifest.context_length) for config in configs)
    if manifest.context_length > context:
        raise CheckpointCorrupt(
            f"{manifest.reference}: context_length {manifest.context_length} is over the backbone's {context} positions"
        )
    return model.to(device).eval().requires_grad_(requires_grad=False)


def save_model(model: RewardModel, path: Path) -> None:
    """Writes ``config.json`` and ``model.safetensors`` in the layout of the family's sequence classification class."""
    assert isinstance(model.head, LinearHead), "the layout holds one row"
    assert model.head.bias is None, "the layout has no place for a bias"
    config = model.backbone.config
    config.num_labels = 1
    whole: Any = AutoModelForSequenceClassification.from_config(config)
    whole.base_model.load_state_dict(model.backbone.state_dict())
    whole.to(next(model.backbone.parameters()).dtype)
    whole.score.load_state_dict({"weight": model.head.weight_H[None]}, assign=True)  # float32 whatever the backbone is
    whole.save_pretrained(path)


def _read_model(checkpoint: Checkpoint, dtype: torch.dtype, split_over: int) -> RewardModel:
    path, score = checkpoint.path, checkpoint.manifest.score
    backbone, unread = _read_backbone(checkpoint.base or path, dtype, split_over)
    if checkpoint.base:
        _merge_adapter(path, backbone, split_over)
    if score.head != "log_ratio":
        model = RewardModel(backbone, load_head(path, score, backbone))
        model.unread = unread
        return model
    reference_path = path / REFERENCE
    if not reference_path.is_dir():
        raise CheckpointCorrupt(f"{path} has no directory {REFERENCE} with the model that a log_ratio compares with")
    reference, more = _read_backbone(reference_path, dtype, split_over)
    heads = vocabulary_head(path, score, backbone), vocabulary_head(reference_path, score, reference)
    ratio = RatioModel(backbone, LogRatioHead(heads[0], reference, heads[1], score))
    ratio.unread = unread + more
    return ratio


@torch.no_grad()
def _merge_adapter(path: Path, backbone: PreTrainedModel, split_over: int) -> None:
    if split_over > 1:
        raise CheckpointError(f"{path} is an adapter, whose layers are not split over devices; publish it merged")
    adapter = Adapter(path / ADAPTER)
    for name, weight in backbone.named_parameters():
        weight.copy_(adapter.merged(name, weight))
    if adapter.remaining():
        raise CheckpointCorrupt(f"{path / ADAPTER} saves modules, which the adapter of a checkpoint does not")


def _read_backbone(path: Path, dtype: torch.dtype, split_over: int) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """The backbone, and the names of tensors that its class does not read."""
    logging.set_verbosity_error()  # it warns of the head's tensors; missing ones are checked below
    logging.disable_progress_bar()
    config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    backbone: PreTrainedModel
    backbone, loading = AutoModel.from_pretrained(
        path,
        config=config,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
        distributed_config=_split(config, split_over),
    )
    if loading["missing_keys"]:
        raise CheckpointCorrupt(f"{path}: tensors are missing: {', '.join(sorted(loading['missing_keys'])[:5])}")
    if loading["mismatched_keys"]:
        raise CheckpointCorrupt(f"{path}: tensors of the wrong shape: {sorted(loading['mismatched_keys'])[:5]}")
    return backbone, tuple(sorted(loading["unexpected_keys"]))


def _split(config: PreTrainedConfig, over: int) -> DistributedConfig | None:
    if over == 1:
        return None
    if not is_accelerate_available():
        raise CheckpointError(
            "layers are split over devices through accelerate; pip install 'agentprm[split]' brings it"
        )
    heads = config.num_key_value_heads
    if not config.base_model_tp_plan:
        raise CheckpointError(f"transformers has no plan to split a {config.model_type} model over devices")
    if heads % over:
        raise CheckpointError(f"{heads} key/value heads cannot be split evenly over {over} devices")
    return DistributedConfig(tp_size=over, tp_plan="auto")
