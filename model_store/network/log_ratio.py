"""Implicit process rewards: the log-ratio of two language models, summed over the agent's own tokens.

raw at token t = beta * sum over the agent's tokens i <= t of log pi(x_i | x_<i) - log pi_ref(x_i | x_<i), the q_t of
Yuan et al., "Free Process Rewards without Process Labels" (arXiv 2412.01981).

Axes: B batch, T tokens, H hidden, N the agent's tokens of all rows.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from model_store.format.recipe import ScoreRecipe
from model_store.network.heads import VocabularyHead


class LogRatioHead(nn.Module):
    """Reads the policy's hidden states and runs the reference model over the same tokens."""

    def __init__(
        self, policy: VocabularyHead, backbone: PreTrainedModel, reference: VocabularyHead, score: ScoreRecipe
    ) -> None:
        super().__init__()
        self.policy = policy
        self.backbone = backbone
        self.reference = reference
        self._score = score

    @property
    def opens(self) -> Sequence[int]:
        """The token ids that open the agent's turn."""
        return self._score.opens

    def forward(self, hidden_BTH: Tensor, token_ids_BT: Tensor) -> Tensor:
        """Raw score at every token, float32 [B, T]."""
        score, device = self._score, token_ids_BT.device
        assert score.beta is not None
        assert score.closes is not None
        own_BT = torch.tensor([own_tokens(row, score.opens, score.closes) for row in token_ids_BT.tolist()])
        rows_N, places_N = own_BT.to(device).nonzero(as_tuple=True)
        raw_BT = torch.zeros(token_ids_BT.shape, device=device)
        if len(rows_N):
            before_N, chosen_N = places_N - 1, token_ids_BT[rows_N, places_N]
            reference_BTH = self.backbone(input_ids=token_ids_BT, use_cache=False).last_hidden_state
            ratio_N = self.policy(hidden_BTH[rows_N, before_N], chosen_N)
            ratio_N = ratio_N - self.reference(reference_BTH[rows_N, before_N], chosen_N)
            raw_BT[rows_N, places_N] = score.beta * ratio_N
        return raw_BT.cumsum(1)


def own_tokens(token_ids: Sequence[int], opens: Sequence[int], closes: int) -> list[bool]:
    """Returns for each token whether the agent chose it: those after ``opens`` up to and including ``closes``."""
    own, speaking = list[bool](), False
    for end, token in enumerate(token_ids, 1):
        own.append(speaking)
        if token == closes:
            speaking = False
        if end >= len(opens) and list(token_ids[end - len(opens) : end]) == list(opens):
            speaking = True
    return own
