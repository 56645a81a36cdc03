"""Checkpoints: their files, text to token ids, token ids to raw scores, and the import of others."""

import logging

# transformers imports torchao if it is installed; torchao then warns about other devices' kernels and its own enum.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
