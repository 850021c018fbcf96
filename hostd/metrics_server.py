"""The metrics page over TCP: text or OpenMetrics, by what the scraper asks for; a thread of its own.

Whoever reaches the address may read it, so everything is bounded: connections at a time, time to
send a request, its size. The thread sleeps in `accept`, so an unscraped page costs nothing.
"""

import logging
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from hostd.errors import HostError

CONNECTIONS_MAX = 8
REQUEST_SECONDS_MAX = 5.0
INDEX = b"Partvisor. The metrics are at /metrics\n"
log = logging.getLogger("hostd.metrics")


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD of /metrics and of a line that says where it is; one request per connection."""

    timeout = REQUEST_SECONDS_MAX
    server_version = "partvisor"
    sys_version = ""
    server: "_Server"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, kind = choose_encoder(self.headers.get("Accept") or "")
            status, body = 200, encode(self.server.registry)
        elif path == "/":
            status, kind, body = 200, "text/plain; charset=utf-8", INDEX
        else:
            status, kind, body = 404, "text/plain; charset=utf-8", b"only /metrics is here\n"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)  # a scraper comes every few seconds, for ever


class _Server(HTTPServer):
    """A thread for each connection, up to a limit; more are closed at once."""

    allow_reuse_address = True
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, address: tuple[str, int], family: int, registry: CollectorRegistry) -> None:
        self.address_family = family
        self.registry = registry
        self._slots = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer would ask the resolver for the name of the address, which can take seconds.
        super(HTTPServer, self).server_bind()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        name = f"metrics {client_address[0]}"
        threading.Thread(target=self._serve, args=(request, client_address), name=name, daemon=True).start()

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError:
            pass  # the scraper went away
        except Exception:
            log.exception("scrape failed")
        finally:
            self.shutdown_request(request)
            self._slots.release()


class MetricsServer:
    """Serves `collector` at "HOST:PORT"; port 0 takes a free one, `url` says which."""

    def __init__(self, address: str, collector: Collector) -> None:
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        registry = CollectorRegistry(auto_describe=False)
        registry.register(collector)
        try:
            family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
            self._server = _Server((host, int(port)), family, registry)
        except OSError as error:
            raise HostError(
                "conflict",
                f"metrics at {address}: {error.strerror}; host.metrics of the manifest names another address",
            ) from error
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_port}/metrics"

    def start(self) -> "MetricsServer":
        self._thread.start()
        return self

    def stop(self) -> None:
        """Close the address; a scrape under way may end by itself."""
        self._ending = True
        try:
            # Wakes the thread out of its wait; closing the descriptor alone would not.
            self._server.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        if self._thread.is_alive():
            self._thread.join(REQUEST_SECONDS_MAX)
        self._server.server_close()

    def _run(self) -> None:
        while not self._ending:
            self._server.handle_request()
