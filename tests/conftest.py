"""One torch thread: the models of the tests are small, and threads that spin for work starve a shared machine."""

import torch

torch.set_num_threads(1)
