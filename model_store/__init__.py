"""Checkpoints: their files, text to token ids, token ids to raw scores, and the import of others."""

import logging

# transformers imports torchao if it is installed, and torchao then warns of kernels for other devices and of an enum
# of its own.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
