"""An app that speaks HTTP, made with dapr-ext-fastapi."""
import asyncio
import os

import uvicorn
from dapr.ext.fastapi import DaprApp
from fastapi import Body, FastAPI, Request, Response

app = FastAPI()
dapr = DaprApp(app)
events = {}


def of(topic):
    return events.setdefault(topic, asyncio.Queue())


@app.api_route("/echo", methods=["GET", "POST", "PUT", "DELETE", "PATCH"])
async def echo(request: Request):
    headers = {"x-answer": "yes", "x-verb": request.method, "x-query": request.url.query,
               "x-seen": request.headers.get("x-question", ""), "x-caller": request.headers.get("dapr-caller-app-id", ""),
               "x-token": request.headers.get("dapr-api-token", "")}
    return Response(await request.body(), 200, headers, request.headers.get("content-type"))


@app.post("/tick")
async def on_tick():
    await of("tick").put({})


@app.get("/healthz")
def healthz():
    return {}


@app.get("/teapot")
def teapot():
    return Response("short and stout", 418)


@app.post("/next-event")
async def next_event(request: Request):
    return await asyncio.wait_for(of((await request.body()).decode()).get(), 20)


@dapr.subscribe(pubsub="events", topic="py-http", route="/on-event")
async def on_event(event=Body()):
    await of("py-http").put(event)
    return {"status": "SUCCESS"}


attempts = {}


@dapr.subscribe(pubsub="events", topic="py-http-retried", route="/on-retried")
async def on_retried(event=Body()):
    attempts[event["id"]] = attempts.get(event["id"], 0) + 1
    if attempts[event["id"]] == 1:
        return {"status": "RETRY"}
    await of("py-http-retried").put(event)
    return {"status": "SUCCESS"}


@dapr.subscribe(pubsub="events", topic="py-http-dropped", dead_letter_topic="py-http-dead", route="/on-dropped")
def on_dropped(event=Body()):
    return {"status": "DROP"}


@dapr.subscribe(pubsub="events", topic="py-http-dead", route="/on-dead")
async def on_dead(event=Body()):
    await of("py-http-dead").put(event)


uvicorn.run(app, host="127.0.0.1", port=int(os.environ["APP_PORT"]), log_level="warning")
