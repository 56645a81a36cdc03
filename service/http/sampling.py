"""Samples the candidates of the items that ask for it from the policy."""

from collections.abc import Sequence

from agentprm import wire
from agentprm.errors import InvalidRequest, RequestError
from agentprm.types import Conversation, State
from service.generation.policy import Policy, SampledAction
from service.http.items import Proposal
from service.queue.terms import Terms

Sampled = dict[int, list[SampledAction]]
"""The actions that were sampled, by the index of their item."""


async def with_samples(
    policy: Policy | None,
    items: Sequence[wire.RankItem | wire.RefusedItem],
    proposals: Sequence[Proposal | RequestError],
    terms: Terms,
) -> tuple[list[Proposal | RequestError], Sampled, float]:
    """Gives each proposal without an error the actions that its item wants sampled.

    Returns the proposals, the sampled actions and the seconds it took. With ``terms.per_item`` an item's error takes
    the place of its proposal.

    Raises:
        InvalidRequest: there is no policy; unless ``terms.per_item``.
        RequestError: as ``Policy.sample``.
    """
    samples: dict[int, tuple[State | Conversation, wire.Sample]] = {
        index: (proposal[0], item.sample)
        for index, (item, proposal) in enumerate(zip(items, proposals, strict=True))
        if isinstance(item, wire.RankItem) and item.sample is not None and not isinstance(proposal, RequestError)
    }
    if not samples:
        return list(proposals), {}, 0.0
    if policy is None and not terms.per_item:
        raise _no_policy(min(samples))
    if policy is None:
        return [_no_policy(at) if at in samples else proposal for at, proposal in enumerate(proposals)], {}, 0.0
    answers, seconds = await policy.sample(list(samples.values()), terms)
    proposed, sampled = list(proposals), Sampled()
    for (index, (state, _)), actions in zip(samples.items(), answers, strict=True):
        if isinstance(actions, RequestError):
            proposed[index] = type(actions)(actions.message, details={"item": index, **actions.details})
        else:
            sampled[index] = actions
            proposed[index] = (state, [action.text for action in actions])
    return proposed, sampled, seconds


def _no_policy(index: int) -> InvalidRequest:
    return InvalidRequest("no policy is set to sample from: send candidates", details={"item": index})
