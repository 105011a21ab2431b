"""orders: takes an order, asks the kitchen how long it takes, saves it and tells the world."""
import itertools

from sidecar import call, serve

numbers = itertools.count(1)


def take(_, wish):
    number = next(numbers)
    answer = call("POST", "/v1.0/invoke/kitchen/method/prepare", {"number": number, **wish})
    order = {"number": number, **wish, "minutes": answer["minutes"], "cook": answer["cook"]}
    call("POST", "/v1.0/state/orders", [{"key": f"order-{number}", "value": order}])
    call("POST", "/v1.0/publish/events/placed", order)
    print(f"order {number}: {wish['item']}, ready in {order['minutes']} minutes", flush=True)
    return 201, order


def show(number, _):
    order = call("GET", f"/v1.0/state/orders/order-{number}")
    return (200, order) if order else (404, {"error": "no such order"})


def cancel(number, _):
    call("DELETE", f"/v1.0/state/orders/order-{number}")
    return 200, {"cancelled": int(number)}


serve({("POST", "orders"): take, ("GET", "orders"): show, ("POST", "cancel"): cancel})
