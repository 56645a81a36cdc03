"""The address of a service, and the httpx clients that reach it: one for each connection."""

import ssl
from dataclasses import dataclass
from typing import Any, Final
from urllib.request import getproxies, proxy_bypass

import httpx

# httpx looks at all its connections several times a request, so each httpx client gets a single one.
_ONE_CONNECTION: Final = httpx.Limits(max_connections=1, max_keepalive_connections=1)


@dataclass(frozen=True, slots=True)
class Address:
    """``proxy`` is the one that the environment names for this host; a transport of the caller's has its own."""

    url: httpx.URL
    headers: dict[str, str]
    proxy: httpx.Proxy | None
    tls: ssl.SSLContext

    @property
    def proxy_place(self) -> str:
        return place(self.proxy.url) if self.proxy is not None else ""

    def open(self, transport: httpx.BaseTransport | None) -> httpx.Client:
        """Makes the httpx client of one connection; nothing is sent before its first request."""
        return httpx.Client(transport=transport, **self._options())

    def open_async(self, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=transport, **self._options())

    def _options(self) -> dict[str, Any]:
        return {
            "base_url": self.url,
            "headers": self.headers,
            "limits": _ONE_CONNECTION,
            "proxy": self.proxy,
            "trust_env": False,
            "verify": self.tls,
        }


def address(base_url: str, api_key: str | None, *, through_proxy: bool) -> Address:
    """Raises ValueError for a ``base_url`` or an ``api_key`` that cannot be used."""
    url = _checked_url(base_url)
    proxy = _proxy_of_environment(url) if through_proxy else None
    return Address(url, _authorization(api_key), proxy, httpx.create_ssl_context())


def place(url: httpx.URL) -> str:
    """The address without user and password."""
    return str(url.copy_with(userinfo=b""))


def _checked_url(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise ValueError(f"base_url must be a URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"base_url must start with http:// or https:// and name a host: {place(url)!r}")
    return url


def _authorization(api_key: str | None) -> dict[str, str]:
    if api_key is None:
        return {}
    # httpx quotes a key that is no header value in its error: one read from a file with its line end, for example.
    if not (api_key.isascii() and api_key.isprintable() and api_key == api_key.strip()):
        raise ValueError("api_key must be printable ASCII without white space around it")
    return {"authorization": f"Bearer {api_key}"}


def _proxy_of_environment(url: httpx.URL) -> httpx.Proxy | None:
    """The proxy of HTTP_PROXY, HTTPS_PROXY or ALL_PROXY, unless NO_PROXY holds the host."""
    proxies = getproxies()
    named = proxies.get(url.scheme) or proxies.get("all")
    if not named or proxy_bypass(url.host) or proxy_bypass(url.netloc.decode()):
        return None
    try:
        proxy = httpx.Proxy(named if "://" in named else f"http://{named}")
    except (ValueError, httpx.InvalidURL):
        proxy = None
    if proxy is None or not proxy.url.host:  # its address may hold a password, so it is not quoted
        raise ValueError(f"the proxy of the environment for {url.scheme} must be a URL of http, https or socks5")
    return proxy
