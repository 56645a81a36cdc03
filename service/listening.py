"""The socket that the service listens on, and the certificate of HTTPS."""

import errno
import socket
import ssl

from agentprm.errors import AgentPRMError
from service.http.limits import BACKLOG
from service.settings import Settings


class CannotListen(AgentPRMError):
    """The address is taken or does not belong to this machine, or the certificate cannot be used."""


def check_certificate(settings: Settings) -> None:
    """Raises CannotListen if uvicorn cannot use the certificate; uvicorn itself would say so only after loading."""
    if settings.tls_certfile is None:
        if settings.tls_keyfile is not None:
            raise CannotListen("AGENTPRM_TLS_KEYFILE is of no use without AGENTPRM_TLS_CERTFILE")
        return
    try:
        # The empty password keeps OpenSSL from asking on the terminal for that of an encrypted key.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            settings.tls_certfile, settings.tls_keyfile, password=""
        )
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise CannotListen(f"the certificate in {settings.tls_certfile} cannot be used: {error}") from error


def bind_socket(host: str, port: int) -> socket.socket:
    """Returns a bound socket that does not listen yet: while models load, clients are refused instead of kept waiting.

    Raises:
        CannotListen: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio disables Nagle's algorithm only on sockets created with IPPROTO_TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, UnicodeError, TypeError) as error:  # the last two: a name that DNS cannot express
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def start_listening(listener: socket.socket) -> None:
    """Listens. Raises CannotListen if another process listens first: SO_REUSEADDR allows several to bind the port."""
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        host, port = listener.getsockname()[:2]
        raise _cannot_listen(host, port, error) from error


def address_in_url(host: str, port: int) -> str:
    """Returns host and port as a URL has them: an IPv6 address is in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _cannot_listen(host: str, port: int, error: Exception) -> CannotListen:
    reason = (error.strerror or str(error)) if isinstance(error, OSError) else "that is no name of a host"
    advice = {
        errno.EADDRINUSE: "; --port or AGENTPRM_PORT chooses another port",
        errno.EACCES: "; ports below 1024 belong to the administrator, --port or AGENTPRM_PORT chooses another",
        errno.EADDRNOTAVAIL: "; 127.0.0.1 is for this machine alone, 0.0.0.0 is for all its addresses",
    }
    number = error.errno if isinstance(error, OSError) else None
    return CannotListen(f"cannot listen on {address_in_url(host, port)}: {reason}{advice.get(number or 0, '')}")
