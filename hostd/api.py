"""The REST interface of a host under /v1, with OpenAPI at /v1/openapi.json.

Routes do nothing but take a request apart, ask the supervisor and write its answer; limits stand in
`api_guard`, the socket and its callers in `api_server`. Every error, whichever layer finds it, has
the one shape of `hostd.errors`. Changes take an Idempotency-Key header.
"""

import asyncio
import json
import logging
import os
import platform
import typing
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from importlib import metadata
from typing import Annotated, Any, Self

from fastapi import FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field, model_validator
from starlette.exceptions import HTTPException

from hostd import api_routes, api_server, plan
from hostd.api_guard import Guard
from hostd.api_server import actor
from hostd.errors import HTTP_METHOD, HostError, from_exception
from hostd.idempotency import AnswerStore
from hostd.interface import Supervisor
from hostd.manifest import Disk, Manifest, Model, Nic, PartitionSpec, export
from hostd.manifest_problems import ManifestError, Path, problem_of
from hostd.manifest_shares import Path as EndpointPath
from hostd.manifest_types import fault
from hostd.path_changes import TIMEOUT, TIMEOUT_MAX
from hostd.wire import RemoteError, WireError

API_VERSION = 1
WAIT_SECONDS_MAX = 86400.0
DEPTH_MAX = 32  # requests of the console's stream at once: its memory is small
PATH_SHOWN_MAX = 100  # characters of a path in an error
log = logging.getLogger("hostd.api")

Key = Annotated[str | None, Header(alias="Idempotency-Key", description="a retry with it gets the first answer")]
Force = Annotated[bool, Query(description="also where it runs")]


class PathRequest(Model):
    path: EndpointPath
    timeout: Annotated[float, Field(ge=0, le=TIMEOUT_MAX, strict=False)] = TIMEOUT


class AttachRequest(Model):
    """One endpoint for a running guest: a disk or a NIC, as in a manifest."""

    disk: Disk | None = None
    nic: Nic | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.disk is None) == (self.nic is None):
            raise fault("is not one endpoint", "either disk or nic")
        return self


class AttributionRequest(Model):
    on: bool


class StopRequest(Model):
    timeout: Annotated[float, Field(ge=0, le=600, strict=False)] = 5.0


class UnloadRequest(Model):
    timeout: Annotated[float, Field(ge=0, le=600, strict=False)] = 5.0


class StreamRequest(Model):
    on: bool
    depth: Annotated[int, Field(ge=1, le=DEPTH_MAX)] = 1


class WaitRequest(Model):
    state: typing.Literal["defined", "starting", "running", "stopping", "stopped", "failed"]
    timeout: Annotated[float, Field(ge=0, le=WAIT_SECONDS_MAX, strict=False)] = 60.0


class ValidateRequest(Model):
    text: str
    file: str = ""


class Document(JSONResponse):
    """JSON in ASCII: whatever a caller sent can be repeated to it, half characters included."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def version() -> dict[str, Any]:
    """What runs here; the same facts that `hostctl version` and the metrics show."""
    try:
        release = metadata.version("partvisor")
    except metadata.PackageNotFoundError:  # started from a checkout that was never installed
        release = "unknown"
    return {
        "name": "partvisor",
        "version": release,
        "api": API_VERSION,
        "python": platform.python_version(),
        "kernel": os.uname().release,
        "machine": os.uname().machine,
        "pid": os.getpid(),
    }


def create_app(supervisor: Supervisor) -> FastAPI:
    """The application for one supervisor; `serve` puts the limits around it."""
    documented = {code: {"description": "{error: {code, message, details}}"} for code in (400, 403, 404, 409, 422, 500)}
    app = FastAPI(
        title="Partvisor",
        version=str(API_VERSION),
        openapi_url="/v1/openapi.json",
        docs_url=None,  # it would load scripts from elsewhere
        redoc_url=None,
        responses=documented,  # type: ignore[arg-type]
    )
    _add_error_shape(app)
    answers = AnswerStore()

    async def once(request: Request, key: str | None, act: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        scope = request.scope
        identity = (scope["method"], scope["path"], scope["query_string"], await request.body())
        return await answers.once(key, identity, act)

    @app.get("/v1/version")
    async def get_version() -> Response:
        return Document(version())

    @app.get("/v1/status")
    async def get_status() -> Response:
        return Document(await supervisor.status())

    @app.get("/v1/partitions")
    async def list_partitions() -> Response:
        return Document({"partitions": supervisor.list()})

    @app.post("/v1/partitions", status_code=201)
    async def spawn_partition(spec: PartitionSpec, request: Request, key: Key = None) -> Response:
        def act() -> Coroutine[Any, Any, Any]:
            return supervisor.spawn(spec, key=key, actor=actor(request))

        return Document(await once(request, key, act), 201)

    @app.get("/v1/partitions/{name}")
    async def get_partition(name: str) -> Response:
        row = next((row for row in supervisor.list() if row["name"] == name), None)
        if row is None:
            raise HostError("not_found", f"no partition is named {name!r}")
        return Document(row)

    @app.delete("/v1/partitions/{name}")
    async def remove_partition(name: str, request: Request, force: Force = False, key: Key = None) -> Response:
        def act() -> Coroutine[Any, Any, Any]:
            return supervisor.remove(name, force, key=key, actor=actor(request))

        return Document(await once(request, key, act))

    @app.post("/v1/partitions/{name}/stop")
    async def stop_partition(name: str, request: Request, body: StopRequest | None = None, key: Key = None) -> Response:
        timeout = (body or StopRequest()).timeout

        def act() -> Coroutine[Any, Any, Any]:
            return supervisor.stop(name, timeout, key=key, actor=actor(request))

        return Document(await once(request, key, act))

    @app.post("/v1/partitions/{name}/wait")
    async def wait_for_partition(name: str, body: WaitRequest) -> Response:
        return Document(await supervisor.wait(name, body.state, body.timeout))

    @app.post("/v1/partitions/{name}/endpoints", status_code=201)
    async def attach(name: str, body: AttachRequest, request: Request, key: Key = None) -> Response:
        def act() -> Coroutine[Any, Any, Any]:
            kind, entry = ("disk", body.disk) if body.disk is not None else ("nic", body.nic)
            assert entry is not None
            return supervisor.attach(name, kind, entry, key=key, actor=actor(request))

        return Document(await once(request, key, act), 201)

    @app.delete("/v1/partitions/{name}/endpoints/{endpoint}")
    async def detach(name: str, endpoint: str, request: Request, key: Key = None) -> Response:
        def act() -> Coroutine[Any, Any, Any]:
            return supervisor.detach(name, endpoint, key=key, actor=actor(request))

        return Document(await once(request, key, act))

    @app.put("/v1/partitions/{name}/endpoints/{endpoint}/path")
    async def set_path(name: str, endpoint: str, body: PathRequest, request: Request, key: Key = None) -> Response:
        def act() -> Coroutine[Any, Any, Any]:
            return supervisor.set_path(name, endpoint, body.path, body.timeout, key=key, actor=actor(request))

        return Document(await once(request, key, act))

    @app.put("/v1/host/attribution")
    async def set_attribution(body: AttributionRequest) -> Response:
        return Document(await supervisor.set_attribution(body.on))

    _add_kernel(app, supervisor, once)
    for routes in api_routes.ROUTES:
        routes.add(app, supervisor, Document)

    @app.get("/v1/partitions/{name}/view")
    async def get_view(name: str) -> Response:
        return Document(await supervisor.view(name))

    @app.get("/v1/partitions/{name}/hardware")
    async def get_hardware(name: str) -> Response:
        return Document(await supervisor.hardware(name))

    @app.get("/v1/partitions/{name}/logs")
    async def get_logs(name: str) -> Response:
        return Document({"name": name, "log": await supervisor.logs(name)})

    @app.get("/v1/events")
    async def get_events(
        since: Annotated[int, Query(ge=0, description="sequence number to start behind")] = 0,
        follow: Annotated[bool, Query(description="go on with new events")] = False,
    ) -> Response:
        return StreamingResponse(_event_lines(supervisor, since, follow), media_type="application/x-ndjson")

    @app.get("/v1/explain")
    async def explain(
        partition: Annotated[str | None, Query(description="only decisions about it")] = None,
        decision: Annotated[int | None, Query(description="only this one")] = None,
        replay: Annotated[bool, Query(description="decide again and compare")] = False,
    ) -> Response:
        return Document(await supervisor.explain(partition, decision, replay))

    @app.get("/v1/doctor")
    async def get_doctor() -> Response:
        from hostd import doctor  # loads what no other route needs

        checks = await asyncio.to_thread(doctor.run)
        return Document({"checks": [check.document() for check in checks]})

    @app.post("/v1/validate")
    async def validate(body: ValidateRequest) -> Response:
        from hostd import manifest_source

        try:
            await asyncio.to_thread(manifest_source.loads, body.text, body.file)
        except ManifestError as error:
            return Document({"problems": [problem.document() for problem in error.problems]})
        return Document({"problems": []})

    @app.post("/v1/plan")
    async def get_plan(wanted: Manifest) -> Response:
        return Document(await plan.apply(supervisor, wanted, dry_run=True))

    @app.post("/v1/apply")
    async def apply(wanted: Manifest, request: Request, key: Key = None) -> Response:
        def act() -> Coroutine[Any, Any, Any]:
            return plan.apply(supervisor, wanted, key=key, actor=actor(request))

        return Document(await once(request, key, act))

    @app.get("/v1/export")
    async def get_export() -> Response:
        return Document(export(supervisor.manifest()))

    @app.post("/v1/down", status_code=202)
    async def down() -> Response:
        # On its own, for it ends this very connection; the application keeps it from being collected.
        app.state.down = asyncio.get_running_loop().create_task(supervisor.down())
        return Document({"pid": os.getpid()}, 202)

    return app


def _add_kernel(app: FastAPI, supervisor: Supervisor, once: Callable[..., Coroutine[Any, Any, Any]]) -> None:
    """Load and unload, and what both leave alone: resources and console."""

    @app.post("/v1/kernel/load")
    async def load(request: Request, key: Key = None) -> Response:
        return Document(await once(request, key, supervisor.load))

    @app.post("/v1/kernel/unload")
    async def unload(request: Request, body: UnloadRequest | None = None, key: Key = None) -> Response:
        timeout = (body or UnloadRequest()).timeout
        return Document(await once(request, key, lambda: supervisor.unload(timeout)))

    @app.get("/v1/resources")
    async def get_resources() -> Response:
        return Document(await supervisor.resources())

    @app.get("/v1/console")
    async def get_console() -> Response:
        return Document(await supervisor.console())

    @app.post("/v1/console/devices/{device}")
    async def touch(device: str) -> Response:
        return Document(await supervisor.touch(device))

    @app.put("/v1/console/stream")
    async def set_stream(body: StreamRequest) -> Response:
        return Document(await supervisor.stream(body.on, body.depth))


async def serve(
    supervisor: Supervisor, socket_path: str | os.PathLike[str], started: asyncio.Event | None = None
) -> None:
    """Serve the API on a Unix socket until cancelled; `started` is set once connections are taken."""
    listener = api_server.listen(socket_path)
    try:
        await api_server.run(Guard(create_app(supervisor)), listener, started)
    finally:
        listener.close()
        with suppress(FileNotFoundError):
            os.unlink(socket_path)


async def _event_lines(supervisor: Supervisor, since: int, follow: bool) -> AsyncIterator[str]:
    if not follow:
        for event in supervisor.events.history(since):
            yield json.dumps(event) + "\n"
        return
    async for event in supervisor.events.subscribe(since):
        yield json.dumps(event) + "\n"


def _add_error_shape(app: FastAPI) -> None:
    async def known(request: Request, exception: Exception) -> Response:
        error = from_exception(exception)
        return Document(error.document(), error.http_status)

    async def unknown(request: Request, exception: Exception) -> Response:
        log.error("%s %s failed", request.method, request.scope["path"])  # uvicorn logs the trace
        return await known(request, exception)

    async def framework(request: Request, exception: Exception) -> Response:
        assert isinstance(exception, HTTPException)
        code = {404: "not_found", HTTP_METHOD: "usage"}.get(exception.status_code, "usage")
        text = {404: "there is nothing at this path", HTTP_METHOD: "this path does not know this method"}
        path = request.scope["path"][:PATH_SHOWN_MAX]
        message = f"{request.method} {path}: {text.get(exception.status_code, exception.detail)}"
        return Document(HostError(code, message).document(), exception.status_code, exception.headers)

    async def malformed(request: Request, exception: Exception) -> Response:
        assert isinstance(exception, RequestValidationError)
        error = _validation_error(request, exception)
        return Document(error.document(), error.http_status)

    for kind in (HostError, RemoteError, WireError, TimeoutError):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(Exception, unknown)


def _validation_error(request: Request, exception: RequestValidationError) -> HostError:
    """Errors of a body in the words of the manifest; errors of the path, query or JSON as `usage`."""
    errors = exception.errors()
    outside = [entry for entry in errors if entry["loc"][0] != "body" or entry["type"] == "json_invalid"]
    if outside:
        where = ".".join(map(str, outside[0]["loc"]))
        return HostError("usage", f"{where}: {outside[0]['msg']}")
    model = _body_model(request)
    problems = [problem_of({**entry, "loc": entry["loc"][1:]}, model, _no_place) for entry in errors]
    return ManifestError(list(dict.fromkeys(problems)))


def _no_place(path: Path, kind: str) -> tuple[str, int | None, int | None]:
    return "", None, None  # a JSON body has paths, but no lines that its sender would know


def _body_model(request: Request) -> type[BaseModel]:
    hints = typing.get_type_hints(request.scope["endpoint"])
    for hint in hints.values():
        for kind in (hint, *typing.get_args(hint)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                return kind
    return Model
