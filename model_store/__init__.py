"""Checkpoints: what they hold, how text becomes tokens, how tokens become scores."""

import logging

# transformers imports torchao wherever it is installed, wanted or not, which warns of kernels for other devices and
# of an enum of its own.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
