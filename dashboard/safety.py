"""What stands between the page and the network: headers, a token where others can reach it, clean refusals."""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlencode

from dash import Dash
from flask import Flask, Response, redirect, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

COOKIE = "hiddenscope-token"
LARGEST_BODY = 2**20
LEAST_TOKEN = 12
FRAMED = "HIDDENSCOPE_FRAMED"
"""The setting of the server that lets notebooks on this machine show the page in a frame."""
NOTEBOOKS = "'self' http://127.0.0.1:* http://localhost:* vscode-webview:"

HEADERS_OF_REFUSALS = [
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
]


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server at ``host``.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_token(host: str, token: str | None) -> None:
    """``ValueError`` when a server that others can reach has no token, or one that is soon guessed."""
    if token is None and not is_loopback(host):
        raise ValueError(f"on {host} others can reach the page; choose a --token that they must give, got none")
    if token is not None and len(token) < LEAST_TOKEN:
        raise ValueError(f"a token of fewer than {LEAST_TOKEN} characters is soon guessed, got {len(token)}")


def protect(app: Dash, *, token: str | None = None) -> None:
    """Headers on every response, clean refusals of what makes no sense, and the token when there is one.

    Call it when all callbacks are registered: the policy names the hashes of the page's own inline scripts.
    """
    server: Flask = app.server
    server.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    scripts = " ".join(app.csp_hashes())
    shared = "; ".join(
        (
            "default-src 'self'",
            f"script-src 'self' 'unsafe-eval' {scripts}",  # plotly's WebGL scatter compiles its shaders' drivers
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )

    @server.after_request
    def add_headers(response: Response) -> Response:
        framed = server.config.get(FRAMED) and token is None
        ancestors = NOTEBOOKS if framed else "'self'"
        response.headers["Content-Security-Policy"] = f"{shared}; frame-ancestors {ancestors}"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    @server.errorhandler(Exception)
    def refuse(error: Exception) -> AnyResponse:
        if isinstance(error, HTTPException):
            return Response(f"{error.code} {error.name}", status=error.code, mimetype="text/plain")
        if not _is_ours(error):  # Dash could not make sense of what was asked
            status = "404 no such thing here" if request.method == "GET" else "400 not a request of this page"
            return Response(status, status=int(status[:3]), mimetype="text/plain")
        server.logger.exception("the page failed")
        return Response("500 the page failed; the terminal says more", status=500, mimetype="text/plain")

    if token is not None:
        _demand(server, token)


def _demand(server: Flask, token: str) -> None:
    @server.before_request
    def check() -> AnyResponse | None:
        if _same(request.cookies.get(COOKIE, ""), token):
            return None
        if _same(request.args.get("token", ""), token):
            rest = urlencode([(k, v) for k, v in request.args.items(multi=True) if k != "token"])
            answer = redirect(request.path + (f"?{rest}" if rest else ""), code=303)
            answer.set_cookie(COOKIE, token, httponly=True, samesite="Strict", secure=request.is_secure)
            return answer
        return Response("401 open the address with ?token=\u2026 at its end", status=401, mimetype="text/plain")


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _is_ours(error: Exception) -> bool:
    """Whether an error arose in our own code, and not where Dash reads the request."""
    trace, ours = error.__traceback__, False
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        ours = ours or (module.startswith("hiddenscope.") and module != __name__)
        trace = trace.tb_next
    return ours
