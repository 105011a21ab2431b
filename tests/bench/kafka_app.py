"""kafka_app.py PORT TOPIC COUNT BATCH: an app that takes events in bulk over gRPC as fast as Python can: it looks for
nothing but the names of the entries. Prints events a second once it has COUNT of them, and ends."""
import sys
import threading
import time
from concurrent import futures

import grpc


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def number(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(tag, data):
    return bytes([tag << 3 | 2]) + number(len(data)) + data


def answer(request):
    """(names confirmed as a TopicEventBulkResponse, how many); entries are field 2, their names field 1, which comes first."""
    at, out, count = 0, [], 0
    while at < len(request):
        tag = request[at]
        size, at = varint(request, at + 1)
        if tag == 2 << 3 | 2:
            n, start = varint(request, at + 1)
            out.append(field(1, request[at:start + n]))
            count += 1
        at += size
    return b"".join(out), count


def main(port, topic, count, batch):
    seen, began, over = [0], [0.0], threading.Event()

    def bulk(request, _):
        body, n = answer(request)
        began[0] = began[0] or time.monotonic()
        seen[0] += n
        if seen[0] >= count and not over.is_set():
            print("%.1f" % (count / (time.monotonic() - began[0])), flush=True)
            over.set()
        return body

    def subscriptions(_, __):
        config = b"\x08\x01\x10" + number(batch) + b"\x18" + number(100)
        raw = field(3, field(1, b"rawPayload") + field(2, b"true"))
        return field(1, field(1, b"ps") + field(2, topic.encode()) + raw + field(7, config))

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            name = details.method.split("/")[-1]
            handler = {"OnBulkTopicEvent": bulk, "OnBulkTopicEventAlpha1": bulk, "ListTopicSubscriptions": subscriptions}.get(name)
            return grpc.unary_unary_rpc_method_handler(handler) if handler else None
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(Handler(),),
                         options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)])
    server.add_insecure_port("127.0.0.1:%d" % port)
    server.start()
    over.wait(300)
    server.stop(10).wait()  # what it is answering goes out first


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
