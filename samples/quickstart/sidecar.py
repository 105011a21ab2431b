"""What both apps need: a small HTTP server for what the sidecar sends, and calls to the sidecar.

An app knows nothing but localhost: `outrigger run` puts the ports into its environment."""
import json
import os
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SIDECAR = "http://127.0.0.1:" + os.environ["DAPR_HTTP_PORT"]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # localhost needs no proxy


def call(method, path, body=None):
    """A request to the sidecar; the answer's JSON, or None when it is empty."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(SIDECAR + path, data, {"Content-Type": "application/json"}, method=method)
    with opener.open(request, timeout=10) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def serve(routes):
    """routes: {("POST", "orders"): function(rest of the path, JSON body) -> (status, JSON)}. Never returns."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet, or TCP holds the second back for 40 ms

        def answer(self):
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            first, _, rest = self.path.strip("/").partition("/")
            route = routes.get((self.command, first))
            status, result = route(rest, body) if route else (404, {"error": "no such path"})
            text = json.dumps(result).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = answer

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["APP_PORT"])), Handler)
    print("listening on", server.server_port, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
