"""Placement of a model on devices, as the settings give it.

``cuda:0`` runs in the service's own process. ``cuda:0,cuda:1`` are two workers, each with the whole model.
``cuda:0+cuda:1`` is one worker whose layers are split over two devices (tensor parallel). Both may be combined.
"""

Placement = tuple[tuple[str, ...], ...]
"""The devices of each worker."""


def parse_placement(text: str) -> Placement:
    """Parses the value of a setting, which ``Settings`` has validated."""
    return tuple(tuple(worker.split("+")) for worker in text.split(","))


def in_this_process(placement: Placement) -> bool:
    """Returns whether the model runs in the service's own process: one worker with one device."""
    return len(placement) == len(placement[0]) == 1


def cpu_processes(placement: Placement) -> int:
    """Returns the number of processes that share the machine's cores, at least 1."""
    return max(1, sum(worker.count("cpu") for worker in placement))
