"""One text-generation server, asked through huggingface_hub's client; the only module that knows it.

Every failure becomes one of our errors. None of them quotes what the server said: that may be the prompt.
"""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx2
from huggingface_hub import AsyncInferenceClient, set_async_client_factory
from huggingface_hub.errors import HfHubHTTPError, TextGenerationError

from agentprm.errors import AgentPRMError, NotReady, Overloaded, RequestError, UpstreamFailed
from service.generation.completions import Generated, from_chat, from_text
from service.generation.retries import with_retries

T = TypeVar("T")

NO_KEY: Final = "EMPTY"
"""What a server without keys is sent. Given none, the client would look for the user's own token of the hub."""
_NOT_A_REPLY: Final = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What reading a reply raises where it is cut, of another form or no JSON."""


class KeyUnreadable(AgentPRMError):
    """The file of a server's key cannot be read."""


class TextServer:
    """Generates text.

    Args:
        who: what errors call it, "the judge's server".
        url: its root; the routes are the client's business.
        key: what it asks for; empty: nothing.
        timeout: seconds that one attempt of a call may take.
    """

    def __init__(self, who: str, url: str, key: str, *, timeout: float) -> None:
        set_async_client_factory(_connections)  # for the process: the client takes them from nowhere else
        self._who = who
        self._timeout = timeout
        self._client = AsyncInferenceClient(base_url=url, api_key=key or NO_KEY)

    async def chat(self, messages: Sequence[Mapping[str, str]], model: str, **options: Any) -> Generated:
        """The next turn. ``options`` are those of the route: max_tokens, temperature, stop, logprobs, top_logprobs.

        Raises:
            Overloaded, NotReady: the server is, or cannot be reached, and was so for all attempts.
            UpstreamFailed: it refused, or answered what is no answer.
        """
        asked = list(map(dict, messages))
        return await with_retries(
            lambda: self._translate_errors(_read_chat(self._client.chat_completion(asked, model=model, **options)))
        )

    async def complete(self, prompt: str, *, max_tokens: int, top_logprobs: int) -> Generated:
        """What goes on from a prompt, the likeliest token each time. Raises as ``chat`` does."""
        options: dict[str, Any] = {
            "details": True,
            "do_sample": False,
            "max_new_tokens": max_tokens,
            "top_n_tokens": top_logprobs,
        }
        return await with_retries(
            lambda: self._translate_errors(_read_text(self._client.text_generation(prompt, **options)))
        )

    async def close(self) -> None:
        await self._client.close()

    async def _translate_errors(self, generated: Awaitable[T]) -> T:
        """What is awaited, its errors as ours."""
        try:
            async with asyncio.timeout(self._timeout):  # of it all; the client would begin anew with every byte
                return await generated
        except TimeoutError as error:
            raise UpstreamFailed(f"{self._who} did not answer within {self._timeout:g} s") from error
        except (HfHubHTTPError, TextGenerationError) as error:
            raise self._refused(error) from error
        except httpx2.TransportError as error:
            raise NotReady(f"{self._who} cannot be reached, or lost the connection") from error
        except _NOT_A_REPLY as error:
            raise UpstreamFailed(f"{self._who} sent what is no reply of its kind") from error

    def _refused(self, error: HfHubHTTPError | TextGenerationError) -> RequestError:
        refusal = error if isinstance(error, HfHubHTTPError) else error.__cause__  # the client wraps those of TGI
        response = getattr(refusal, "response", None)
        status = response.status_code if response is not None else 0
        if status == Overloaded.status:
            return Overloaded(f"{self._who} is overloaded", retry_after=_retry_after(response))
        if status == NotReady.status:
            return NotReady(f"{self._who} is not ready", retry_after=_retry_after(response))
        why = {401: ": it wants another key", 403: ": the key may not ask", 404: ": it has no such model or route"}
        return UpstreamFailed(f"{self._who} answered HTTP {status}{why.get(status, '')}")


async def _read_chat(reply: Awaitable[Any]) -> Generated:
    return from_chat(await reply)


async def _read_text(reply: Awaitable[Any]) -> Generated:
    return from_text(await reply)


def _connections() -> httpx2.AsyncClient:
    """As many as there are calls. The environment may tell the client's own to stay offline, or to log prompts."""
    return httpx2.AsyncClient(limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None))


def _retry_after(response: httpx2.Response | None) -> float | None:
    value = response.headers.get("retry-after", "") if response is not None else ""
    return float(value) if value.isascii() and value.isdigit() else None


def read_key(file: Path | None) -> str:
    """The key in a file; empty without one. Raises KeyUnreadable."""
    if file is None:
        return ""
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyUnreadable(f"the key in {file} cannot be read") from error
    if not (key and key.isascii() and key.isprintable()):
        raise KeyUnreadable(f"{file} must hold one key, printable ASCII")
    return key
