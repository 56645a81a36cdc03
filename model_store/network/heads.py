"""Heads: hidden states to raw scores, always in float32, so that no score is rounded to the backbone's dtype.

Axes: B batch, T tokens, H hidden, K outputs, V vocabulary, N selected tokens.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

LOGITS: Final = 2**25
"""Most logits in memory at once: 128 MiB of float32."""


class LinearHead(nn.Module):
    """raw = w . hidden (+ b)."""

    def __init__(self, weight_H: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight_H = nn.Parameter(weight_H.float())
        self.bias = None if bias is None else nn.Parameter(bias.float())

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        raw_BT = hidden_BTH.float() @ self.weight_H
        return raw_BT if self.bias is None else raw_BT + self.bias


class OutputsHead(nn.Module):
    """Reads one of several outputs where no single row gives it: softmax over more than two, or a soft cap.

    Args:
        softmax: raw is the log-odds of ``output`` among all, else ``output`` itself.
        cap: outputs are cap * tanh(output / cap), as Gemma's logits are.
        sign: -1 for a head that is high for a bad step.
    """

    def __init__(
        self, weight_KH: Tensor, bias_K: Tensor, output: int, *, softmax: bool, cap: float | None = None, sign: int = 1
    ) -> None:
        super().__init__()
        self.weight_KH = nn.Parameter(weight_KH.float())
        self.bias_K = nn.Parameter(bias_K.float())
        self._output = output
        self._softmax = softmax
        self._cap = cap
        self._sign = sign

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        out_BTK = nn.functional.linear(hidden_BTH.float(), self.weight_KH, self.bias_K)
        if self._cap is not None:
            out_BTK = self._cap * torch.tanh(out_BTK / self._cap)
        raw_BT = out_BTK[..., self._output]
        if self._softmax:
            others = [index for index in range(out_BTK.shape[-1]) if index != self._output]
            raw_BT = raw_BT - out_BTK[..., others].logsumexp(-1)
        return self._sign * raw_BT


class MlpHead(nn.Module):
    """Linear layers with a ReLU after each, then a head."""

    def __init__(self, layers: Sequence[nn.Linear], last: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.last = last

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        x_BTH = hidden_BTH.float()
        for layer in self.layers:
            x_BTH = layer(x_BTH).relu()
        raw_BT: Tensor = self.last(x_BTH)
        return raw_BT


class VocabularyHead(nn.Module):
    """A language model's output layer: the log-probability of one token after each hidden state."""

    def __init__(self, weight_VH: Tensor, cap: float | None = None) -> None:
        super().__init__()
        self.weight_VH = nn.Parameter(weight_VH.float())
        self._cap = cap

    def forward(self, hidden_NH: Tensor, token_ids_N: Tensor) -> Tensor:
        """Log-probabilities [N] of ``token_ids_N``, computed in parts of at most ``LOGITS`` logits."""
        at_once = max(1, LOGITS // len(self.weight_VH))
        parts = zip(torch.split(hidden_NH, at_once), torch.split(token_ids_N, at_once), strict=True)
        return torch.cat([self._log_probabilities(*part) for part in parts])

    def _log_probabilities(self, hidden_NH: Tensor, token_ids_N: Tensor) -> Tensor:
        logits_NV = nn.functional.linear(hidden_NH.float(), self.weight_VH)
        if self._cap is not None:
            logits_NV = self._cap * torch.tanh(logits_NV / self._cap)
        return logits_NV.gather(1, token_ids_N[:, None])[:, 0] - logits_NV.logsumexp(1)


def output_head(
    weight_KH: Tensor,
    bias_K: Tensor | None,
    output: int,
    *,
    softmax: bool = False,
    cap: float | None = None,
    sign: int = 1,
) -> nn.Module:
    """The head that reads one output, as a single row if one gives the same number.

    The log-odds of one of two outputs are linear in the hidden state: their row is the difference of the two rows.
    """
    if cap is not None or (softmax and len(weight_KH) > 2):
        zeros_K = weight_KH.new_zeros(len(weight_KH))
        return OutputsHead(
            weight_KH, zeros_K if bias_K is None else bias_K, output, softmax=softmax, cap=cap, sign=sign
        )
    row = torch.zeros(len(weight_KH))
    row[output] = sign
    if softmax:
        row[1 - output] = -sign
    return LinearHead(row @ weight_KH.float(), None if bias_K is None else row @ bias_K.float())
