"""Calls to one text-generation server through huggingface_hub's client; the only module that knows that library.

Every failure becomes a ``RequestError``. None quotes the server's reply, which may repeat the prompt.
"""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx2
from huggingface_hub import AsyncInferenceClient, set_async_client_factory
from huggingface_hub.errors import HfHubHTTPError, TextGenerationError

from agentprm.errors import AgentPRMError, NotReady, Overloaded, RequestError, UpstreamFailed
from service.generation.completions import Completion, from_chat, from_text
from service.generation.retries import with_retries

T = TypeVar("T")

NO_KEY: Final = "EMPTY"
"""Key sent to a server that needs none. Without a key huggingface_hub would send the user's own token of the hub."""
_NOT_A_REPLY: Final = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""Errors of reading a reply that is cut, has another form or is no JSON."""


class KeyUnreadable(AgentPRMError):
    """The file of a server's key cannot be read."""


def set_up_http_clients() -> None:
    """Makes huggingface_hub open unlimited HTTP connections, without hooks. Called once when the service starts.

    The setting holds for the process, because ``AsyncInferenceClient`` takes no client: it calls the library's factory
    at its first request. ``service.queue.calls`` limits the calls. The hooks of the library's own clients
    would follow ``HF_HUB_OFFLINE`` and could log prompts.
    """
    set_async_client_factory(_http_client)


def _http_client() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None))


class GenerationClient:
    """Generates text on one server.

    Args:
        name: name of the server in errors, such as "the judge's server".
        url: root of the server; huggingface_hub adds the routes.
        key: API key; empty if the server needs none.
        timeout: seconds that one attempt of a call may take.
    """

    def __init__(self, name: str, url: str, key: str, *, timeout: float) -> None:
        self._name = name
        self._timeout = timeout
        self._client = AsyncInferenceClient(base_url=url, api_key=key or NO_KEY)

    async def chat(self, messages: Sequence[Mapping[str, Any]], model: str, **options: Any) -> Completion:
        """Generates the next message. ``options``: max_tokens, temperature, stop, logprobs, top_logprobs.

        Raises:
            Overloaded, NotReady: the server is overloaded, not ready or out of reach, in all attempts.
            UpstreamFailed: it refused, took too long, or its reply cannot be read.
        """
        chat = list(map(dict, messages))
        return await with_retries(
            lambda: self._translate_errors(_read_chat(self._client.chat_completion(chat, model=model, **options)))
        )

    async def complete(self, prompt: str, *, max_tokens: int, top_logprobs: int | None) -> Completion:
        """Continues ``prompt`` greedily, without probabilities if ``top_logprobs`` is None. Raises as ``chat`` does."""
        options: dict[str, Any] = {"details": True, "do_sample": False, "max_new_tokens": max_tokens}
        options |= {} if top_logprobs is None else {"top_n_tokens": top_logprobs}
        return await with_retries(
            lambda: self._translate_errors(_read_text(self._client.text_generation(prompt, **options)))
        )

    async def close(self) -> None:
        await self._client.close()

    async def _translate_errors(self, completion: Awaitable[T]) -> T:
        """Awaits ``completion`` within the timeout and raises its errors as ``RequestError``."""
        try:
            # A limit on the whole attempt. The client's own timeout begins anew with every byte.
            async with asyncio.timeout(self._timeout):
                return await completion
        except TimeoutError as error:
            raise UpstreamFailed(f"{self._name} did not answer within {self._timeout:g} s") from error
        except (HfHubHTTPError, TextGenerationError) as error:
            raise self._refused(error) from error
        except httpx2.TransportError as error:
            raise NotReady(f"{self._name} cannot be reached, or lost the connection") from error
        except _NOT_A_REPLY as error:
            raise UpstreamFailed(f"{self._name} sent what is no reply of its kind") from error

    def _refused(self, error: HfHubHTTPError | TextGenerationError) -> RequestError:
        refusal = error if isinstance(error, HfHubHTTPError) else error.__cause__  # the client wraps those of TGI
        response = getattr(refusal, "response", None)
        status = response.status_code if response is not None else 0
        if status == Overloaded.status:
            return Overloaded(f"{self._name} is overloaded", retry_after=_retry_after(response))
        if status == NotReady.status:
            return NotReady(f"{self._name} is not ready", retry_after=_retry_after(response))
        why = {401: ": it wants another key", 403: ": the key may not ask", 404: ": it has no such model or route"}
        return UpstreamFailed(f"{self._name} answered HTTP {status}{why.get(status, '')}")


async def _read_chat(reply: Awaitable[Any]) -> Completion:
    return from_chat(await reply)


async def _read_text(reply: Awaitable[Any]) -> Completion:
    return from_text(await reply)


def _retry_after(response: httpx2.Response | None) -> float | None:
    """Returns the seconds of a ``retry-after`` header; None without one, or if it is a date."""
    value = response.headers.get("retry-after", "") if response is not None else ""
    return float(value) if value.isascii() and value.isdigit() else None


def read_key(file: Path | None) -> str:
    """Returns the key in ``file``; empty without a file.

    Raises:
        KeyUnreadable: the file cannot be read, or holds anything but one key of printable ASCII.
    """
    if file is None:
        return ""
    try:
        key = file.read_text(encoding="utf-8-sig").strip()  # Windows editors put a mark at the beginning
    except OSError as error:
        raise KeyUnreadable(f"the key in {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise KeyUnreadable(f"{file} is not UTF-8; save it as UTF-8") from error
    if not (key and key.isascii() and key.isprintable()):
        raise KeyUnreadable(f"{file} must hold one key, printable ASCII")
    return key
