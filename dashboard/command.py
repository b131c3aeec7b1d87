"""``hiddenscope dashboard``: serve the live page for the runs below a folder."""

from __future__ import annotations

import argparse
import errno
import logging
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiddenscope.allocator import allocate_from_few_arenas

if TYPE_CHECKING:
    from dash import Dash


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("logdir", type=Path, help="where runs are, or will be, recorded (such as lightning_logs)")
    parser.add_argument("--port", type=int, default=8050, help="port to serve on (%(default)s; 0: any free one)")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (%(default)s)")
    parser.add_argument("--token", help="what viewers must give; needed when others can reach --host")
    parser.add_argument("--no-worker", action="store_true", help="show what is stored, compute nothing")
    parser.add_argument(
        "--until-input-ends", action="store_true", help="end with standard input, that is with whoever started this"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    from hiddenscope.dashboard.safety import check_token

    logdir: Path = args.logdir.expanduser()
    if logdir.exists() and not logdir.is_dir():
        raise ValueError(f"expected a folder of runs, got the file {logdir}; give the folder that it lies in")
    if not logdir.exists() and not logdir.absolute().parent.is_dir():
        raise ValueError(f"expected a folder of runs, got {logdir}, which does not exist; check the path, or create it")
    check_token(args.host, args.token)
    allocate_from_few_arenas()
    listener = listen(args.host, args.port)

    from hiddenscope.dashboard.app import create_app
    from hiddenscope.dashboard.supervisor import Supervisor

    supervisor = None if args.no_worker else Supervisor.of(logdir)
    app = create_app(logdir, supervisor=supervisor, token=args.token)
    server = serve(app, listener)
    print(f"hiddenscope dashboard: http://{_address(listener)}  (runs below {logdir}; Ctrl-C ends it)", flush=True)
    if supervisor is not None:
        supervisor.start()
    if args.until_input_ends:
        threading.Thread(target=_interrupt_at_the_end_of_input, daemon=True).start()
    try:
        server.run()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
        if supervisor is not None:
            supervisor.stop()
    return 0


def _interrupt_at_the_end_of_input() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    signal.raise_signal(signal.SIGINT)


def serve(app: Dash, listener: socket.socket) -> Any:
    """The waitress server of a page; ``run`` it."""
    import waitress
    from waitress.channel import HTTPChannel
    from waitress.task import ErrorTask

    from hiddenscope.dashboard.safety import HEADERS_OF_REFUSALS

    class Refusal(ErrorTask):
        """The answer to what is no HTTP: it never reaches the page, and carries its headers all the same."""

        def execute(self) -> None:
            self.response_headers += HEADERS_OF_REFUSALS
            super().execute()

    class Channel(HTTPChannel):
        error_task_class = Refusal

    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a short queue is no news
    server = waitress.create_server(app.server, sockets=[listener], threads=8, ident=None)
    server.channel_class = Channel
    return server


def run_until_closed(server: Any) -> None:
    """Run a server that another thread will close, also while its sockets are being waited on."""
    try:
        server.run()
    except OSError:
        if server.accepting:
            raise


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, or ``ValueError`` in words when there can be none."""
    if not 0 <= port <= 65535:
        raise ValueError(f"a port lies in 0..65535, got {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ValueError(f"port {port} is in use; end its program, or choose another with --port") from None
        if error.errno == errno.EACCES:
            raise ValueError(f"port {port} is not open to this user; choose one above 1023 with --port") from None
        raise ValueError(f"cannot serve on {host}:{port} ({error}); --host takes an address of this machine") from None
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
