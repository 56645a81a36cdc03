"""Start and drain of the service, and the answers to ``/health`` and ``/ready`` meanwhile."""

import asyncio

from service.access.rate_limits import RateLimiter
from service.generation.policy import Policy
from service.models.catalog import Models
from service.models.registry import Registry
from service.recording.recorder import Recorder
from service.score_cache.contract import ScoreCache


class Lifecycle:
    """Starts and stops the parts of the service in order."""

    def __init__(
        self,
        models: Models,
        registry: Registry,
        cache: ScoreCache,
        rate_limiter: RateLimiter,
        policy: Policy | None,
        *,
        recorder: Recorder | None,
    ) -> None:
        self._models = models
        self._registry = registry
        self._cache = cache
        self._rate_limiter = rate_limiter
        self._policy = policy
        self.recorder = recorder
        self._phase = "the service is warming up"
        self._started = False

    @property
    def failed_models(self) -> list[str]:
        """References of the wanted models that could not be loaded or warmed up. The others answer."""
        return list(self._models.failed)

    def why_broken(self) -> str | None:
        """Returns why only a new process can help; None if nothing is broken."""
        dead = [model.reference for model in self._models.all if self._started and not model.alive]
        return f"nothing can be scored any more by {', '.join(dead)}; the log says why" if dead else None

    def why_not_ready(self) -> str | None:
        """Returns why a request sent now would not be scored; None if it would be."""
        return self._phase or self.why_broken() or self._why_paused()

    def _why_paused(self) -> str | None:
        restarting = [model.reference for model in self._models.all if model.restarting]
        return f"the workers of {', '.join(restarting)} are being started again" if restarting else None

    async def start(self) -> None:
        """Connects the caches and warms up the models; ``/ready`` turns green at the end."""
        await self._cache.start()
        await self._rate_limiter.start()
        await self._registry.start()
        if self._policy is not None:
            self._policy.open()
        if self.recorder is not None:
            self.recorder.start()
        self._phase, self._started = "", True

    async def drain(self) -> None:
        """Turns ``/ready`` red, answers the requests in flight, then stores the last scores and recordings."""
        self._phase, self._started = "the service is shutting down", False
        if self._policy is not None:
            await self._policy.close()
        await self._registry.close()
        await self._rate_limiter.close()
        await self._cache.close()
        if self.recorder is not None:
            await asyncio.to_thread(self.recorder.close)
