"""kitchen: says how long a dish takes when asked, and hears of every order that was placed."""
from sidecar import serve

MINUTES = {"tea": 4, "soup": 12, "pie": 35}
heard = []


def prepare(_, order):
    return 200, {"cook": "Mina", "minutes": MINUTES.get(order["item"], 20)}


def subscriptions(what, _):
    if what == "subscribe":
        return 200, [{"pubsubname": "events", "topic": "placed", "route": "/placed"}]
    return 404, {}


def placed(_, event):
    heard.append(event["data"])
    print(f"a ticket for order {event['data']['number']} hangs on the rail", flush=True)
    return 200, {"status": "SUCCESS"}


serve({
    ("POST", "prepare"): prepare,
    ("GET", "dapr"): subscriptions,
    ("POST", "placed"): placed,
    ("GET", "tickets"): lambda *_: (200, heard),
})
