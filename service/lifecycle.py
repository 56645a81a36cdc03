"""From warm-up to drained: the answers to ``/health`` and ``/ready``."""

from service.access.rate_limits import Rates
from service.generation.policy import Policy
from service.models.catalog import Models
from service.models.registry import Registry
from service.score_cache.contract import ScoreCache


class Lifecycle:
    def __init__(
        self, models: Models, registry: Registry, cache: ScoreCache, rates: Rates, policy: Policy | None
    ) -> None:
        self._models = models
        self._registry = registry
        self._cache = cache
        self._rates = rates
        self._policy = policy
        self._phase = "the service is warming up"
        self._started = False

    def why_broken(self) -> str | None:
        """None unless only a new process can help."""
        dead = [model.reference for model in self._models.all if self._started and not model.alive]
        return f"nothing can be scored any more by {', '.join(dead)}; the log says why" if dead else None

    def why_not_ready(self) -> str | None:
        """None while a request sent now would be scored."""
        return self._phase or self.why_broken()

    async def start(self) -> None:
        await self._cache.start()
        await self._rates.start()
        for model in self._models.all:
            await model.start()
        if self._policy is not None:
            self._policy.open()
        self._phase, self._started = "", True

    async def drain(self) -> None:
        """Turns ``/ready`` red, answers what was admitted, then stores the last scores."""
        self._phase, self._started = "the service is shutting down", False
        if self._policy is not None:
            await self._policy.close()
        await self._registry.close()
        await self._rates.close()
        await self._cache.close()
