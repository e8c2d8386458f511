"""The routes: what the shop answers over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from string import Template

import anyio.to_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from bento import metrics, migrate, problems, search
from bento.config import Config
from bento.database import Database
from bento.menu import Menu
from bento.middleware import Observe
from bento.orders import Orders, check_body, check_key

THREADS = 8
MAX_BODY_BYTES = 64 * 1024
STATIC = resources.files("bento") / "static"


async def menu(request: Request) -> Response:
    """GET /api/menu: all boxes."""
    snapshot = await run_in_threadpool(request.app.state.menu.snapshot)
    return Response(snapshot.body, media_type="application/json")


def find(request: Request) -> JSONResponse:
    """GET /api/search?q=: the boxes that match best; an empty query finds all."""
    query = request.query_params.get("q", "")[:80].strip()
    snapshot = request.app.state.menu.snapshot()
    if query:
        ranked = search.rank(query, snapshot.texts)
        results = [{**snapshot.items[index], "score": score} for score, index in ranked]
    else:
        results = [{**item, "score": search.BEST} for item in snapshot.items]
    return JSONResponse({"query": query, "scorer": search.SCORER, "results": results})


async def place_order(request: Request) -> JSONResponse:
    """POST /api/orders: 201 for a new order, 200 with the same body for a retry."""
    key = check_key(request.headers.get("idempotency-key"))
    body = await request.body()
    if len(body) > MAX_BODY_BYTES:
        raise problems.Problem(413, f"An order has at most {MAX_BODY_BYTES} bytes.")
    order, is_new = await run_in_threadpool(request.app.state.orders.place, key, check_body(body))
    return JSONResponse(order, 201 if is_new else 200, {"Location": f"orders/{order['id']}"})


def order_by_id(request: Request) -> JSONResponse:
    """GET /api/orders/{id}: one order and how far the kitchen is with it."""
    return JSONResponse(request.app.state.orders.by_id(request.path_params["id"]))


def orders_by_key(request: Request) -> JSONResponse:
    """GET /api/orders?key=: the order that was taken for an idempotency key, if any."""
    key = request.query_params.get("key")
    if not key:
        raise problems.Problem(400, "Say which order: /api/orders?key=…")
    found = request.app.state.orders.by_key(key)
    return JSONResponse(
        {"orders": [{k: v for k, v in order.items() if k != "body_digest"} for order in found]}
    )


async def info(request: Request) -> JSONResponse:
    """GET /api/info: what runs here."""
    config: Config = request.app.state.config
    return JSONResponse({"release": config.release, "replica": config.replica, "scorer": search.SCORER})


async def healthz(_request: Request) -> JSONResponse:
    """GET /healthz: this process is alive."""
    return JSONResponse({"status": "ok"})


def readyz(request: Request) -> JSONResponse:
    """GET /readyz: the database answers and has the schema that this release needs."""
    try:
        missing = migrate.pending(request.app.state.database)
    except Exception as error:  # whatever the driver raises: the answer is "not ready", with the reason
        return problems.response(503, f"The database doesn't answer: {error}")
    if missing:
        return problems.response(503, f"Migrations are missing: {', '.join(missing)}. Run `bento migrate`.")
    return JSONResponse({"status": "ready"})


async def page(request: Request) -> HTMLResponse:
    """GET /: the storefront."""
    return HTMLResponse(request.app.state.page)


def render_page(config: Config) -> str:
    """The storefront's page, which says what runs here; without a built app.js it says so."""
    template = Template((STATIC / "index.html").read_text("utf-8"))
    built = (STATIC / "app.js").is_file()
    return template.substitute(
        release=config.release,
        replica=config.replica,
        scorer="C" if search.SCORER == "c" else "pure Python",
        script='<script type="module" src="static/app.js"></script>' if built else "",
        unbuilt="hidden" if built else "",
    )


def routes() -> list[Route | Mount]:
    """All that the shop answers to."""
    return [
        Route("/", page),
        Route("/api/menu", menu),
        Route("/api/search", find),
        Route("/api/orders", place_order, methods=["POST"]),
        Route("/api/orders", orders_by_key, methods=["GET"]),
        Route("/api/orders/{id}", order_by_id),
        Route("/api/info", info),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics.metrics),
        Mount("/static", StaticFiles(packages=[("bento", "static")]), name="static"),
    ]


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Few threads (memory), and a clean end for the database's connections."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    yield
    app.state.database.close()


def create_app(config: Config) -> Observe:
    """The whole application for one configuration."""
    app = Starlette(
        routes=routes(),
        lifespan=lifespan,
        exception_handlers={
            problems.Problem: problems.on_problem,
            HTTPException: problems.on_http_exception,
            Exception: problems.on_crash,
        },
    )
    app.state.config = config
    app.state.database = Database(config.database_url)
    app.state.menu = Menu(app.state.database)
    app.state.orders = Orders(app.state.database)
    app.state.page = render_page(config)
    return Observe(app, config)
