"""The query API against a server that says it has RediSearch and RedisJSON: what it is asked, what is made of its answers.

Debian's redis-server has neither, so this one is scripted, with replies as RediSearch 2.6 gives them (RESP2)."""
import json
import socket
import threading

from grpc_client import Client, needs_grpc
from harness import Case, Port, component, tag

INDEXES = [{"name": "people", "indexes": [{"key": "person.org", "type": "TEXT"}, {"key": "person.id", "type": "NUMERIC"}, {"key": "city", "type": "TEXT"}]}]


class SearchServer:
    """Remembers the commands of interest and answers what `results` says."""

    def __init__(self, has_modules=True):
        self.port, self.has_modules = Port(), has_modules
        self.commands, self.results, self.documents = [], [0], {}
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", self.port.number))
        self.listener.listen(64)
        self.host = "127.0.0.1:%d" % self.port.number
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.listener.close()
        self.port.release()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection, connection.makefile("rb") as file:
            while True:
                line = file.readline()
                if not line:
                    return
                args = []
                for _ in range(int(line[1:])):
                    args.append(file.read(int(file.readline()[1:]) + 2)[:-2].decode())
                connection.sendall(self.encode(self.answer(args)))

    def answer(self, args):
        name = args[0].upper()
        if name.startswith(("FT.", "JSON.", "EVAL")):
            self.commands.append(args)
        if name == "PING":
            return "+PONG"
        if name == "SCRIPT":
            return "0" * 40
        if name == "INFO":
            return "# Replication\r\nrole:master\r\nconnected_slaves:0\r\n"
        if name == "COMMAND":
            return [[n, 2] if self.has_modules else None for n in args[2:]]
        if name == "FT.DROPINDEX":
            return "-Unknown Index name"
        if name == "FT.SEARCH":
            return self.results
        if name == "JSON.GET":
            return self.documents.get(args[1])
        if name.startswith("EVAL"):
            return 0
        return "+OK"

    def encode(self, value):
        if value is None:
            return b"$-1\r\n"
        if isinstance(value, int):
            return b":%d\r\n" % value
        if isinstance(value, list):
            return b"*%d\r\n" % len(value) + b"".join(self.encode(v) for v in value)
        data = value.encode()
        return data + b"\r\n" if data[:1] in b"+-" and b"\r" not in data else b"$%d\r\n%s\r\n" % (len(data), data)


class Query(Case):
    def start(self, server, **metadata):
        self.addCleanup(server.close)
        resource = component("st", "state.redis", {"redisHost": server.host, "queryIndexes": json.dumps(INDEXES), **metadata})
        return self.sidecar("app", resources={"st.yaml": resource})

    def query(self, sidecar, value, index="people"):
        return sidecar.call_json("POST", "/v1.0-alpha1/state/st/query" + ("?metadata.queryIndexName=" + index if index else ""), value)

    @tag("debug")
    def test_indexes_are_made_at_the_start(self):
        server = SearchServer()
        a = self.start(server)
        self.assertEqual(server.commands, [["FT.DROPINDEX", "people"], [
            "FT.CREATE", "people", "ON", "JSON", "SCHEMA", "$.data.person.org", "AS", "var0", "TEXT", "SORTABLE",
            "$.data.person.id", "AS", "var1", "NUMERIC", "SORTABLE", "$.data.city", "AS", "var2", "TEXT", "SORTABLE"]])
        listed = a.call("GET", "/v1.0/metadata").json["components"][0]["capabilities"]
        self.assertIn("QUERY_API", listed)

    @tag("debug")
    def test_filters_sorts_and_pages(self):
        server = SearchServer()
        a = self.start(server)
        cases = (
            ({}, "*"),
            ({"filter": {}}, "*"),
            ({"filter": {"EQ": {"city": "Red Mond"}}}, "(@var2:(Red Mond))"),
            ({"filter": {"EQ": {"person.id": 7}}}, "(@var1:[7 7])"),
            ({"filter": {"NEQ": {"person.id": 7}}}, "-(@var1:[7 7])"),
            ({"filter": {"GT": {"person.id": 7}}}, "(@var1:[(7 +inf])"),
            ({"filter": {"GTE": {"person.id": 7.5}}}, "(@var1:[7.5 +inf])"),
            ({"filter": {"LT": {"person.id": 7}}}, "(@var1:[-inf (7])"),
            ({"filter": {"LTE": {"person.id": -7}}}, "(@var1:[-inf -7])"),
            ({"filter": {"IN": {"city": ["A", "B"]}}}, "((@var2:(A))|(@var2:(B)))"),
            ({"filter": {"OR": [{"EQ": {"city": "A"}}, {"AND": [{"NEQ": {"person.org": "B"}}, {"LT": {"person.id": 1}}]}]}},
             "((@var2:(A))|(-(@var0:(B)) (@var1:[-inf (1])))"),
            # What means something to the search's language is no way out of a text.
            ({"filter": {"EQ": {"city": "x) | @var1:[0 inf] (y"}}}, "(@var2:(x     var1  0 inf   y))"),
        )
        for value, wanted in cases:
            self.assertEqual(self.query(a, value).status, 204)
            self.assertEqual(server.commands[-1], ["FT.SEARCH", "people", wanted, "RETURN", "2", "$.data", "$.version"])
        self.query(a, {"sort": [{"key": "person.id", "order": "DESC"}], "page": {"limit": 3, "token": "6"}})
        self.assertEqual(server.commands[-1], ["FT.SEARCH", "people", "*", "SORTBY", "var1", "DESC", "LIMIT", "6", "3", "RETURN", "2", "$.data", "$.version"])

    @tag("debug")
    def test_results(self):
        server = SearchServer()
        a = self.start(server)
        server.results = [9, "app||k1", ["$.data", '{"city":"A"}', "$.version", "3"], "app||k2", ["$.version", "1"]]
        answer = self.query(a, {"page": {"limit": 2, "token": "4"}})
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.json, {"results": [{"key": "k1", "data": {"city": "A"}, "etag": "3"},
                                                   {"key": "k2", "data": None, "etag": "1", "error": "the document has no data"}], "token": "6"})

    @needs_grpc
    @tag("debug")
    def test_over_grpc(self):
        server = SearchServer()
        a = self.start(server)
        server.results = [1, "app||k1", ["$.data", "7", "$.version", "3"]]
        with Client(a.grpc) as client:
            answer = client.call("Dapr/QueryStateAlpha1", {"store_name": "st", "query": '{"page":{"limit":1}}', "metadata": {"queryIndexName": "people"}})
            self.assertEqual(answer.response, {"results": [{"key": "k1", "data": b"7", "etag": "3"}], "token": "1"})
            answer = client.call("Dapr/QueryStateAlpha1", {"store_name": "st", "query": "{"})
            self.assertEqual((answer.code, answer.reason), ("INTERNAL", "DAPR_STATE_QUERY_FAILED"))

    @tag("debug")
    def test_what_is_no_query(self):
        server = SearchServer()
        a = self.start(server)
        server.commands.clear()
        wrong = [{"filter": {"EQ": {"nowhere": 1}}}, {"filter": {"EQ": {"city": True}}}, {"filter": {"GT": {"city": "A"}}},
                 {"filter": {"WHAT": {"city": "A"}}}, {"filter": {"EQ": {"city": "A"}, "NEQ": {"city": "B"}}}, {"filter": {"AND": []}},
                 {"filter": {"IN": {"city": []}}}, {"filter": [1]}, {"filter": {"EQ": {"city": "()"}}}, {"page": {"limit": -1}},
                 {"page": {"token": "x"}}, {"sort": [{"key": "nowhere"}]}, {"sort": [{"key": "city"}, {"key": "person.id"}]}, [], 7]
        for value in wrong:
            answer = self.query(a, value)
            self.assertEqual((answer.status, answer.json["errorCode"]), (500, "ERR_STATE_QUERY"), value)
        self.assertEqual(self.query(a, {}, index="").status, 500)
        self.assertEqual(self.query(a, {}, index="other").status, 500)
        self.assertEqual(server.commands, [])

    @tag("debug")
    def test_documents(self):
        """contentType application/json: the value is a document of RedisJSON."""
        server = SearchServer()
        a = self.start(server)
        item = {"key": "k", "value": {"b": 1, "a": 2}, "metadata": {"contentType": "application/json"}}
        self.assertEqual(a.call_json("POST", "/v1.0/state/st", [item]).status, 204)
        self.assertEqual(server.commands[-1][2:], ["1", "app||k", "s", "j", "", '{"data":{"a":2,"b":1}}', "", ""])
        server.documents["app||k"] = '{"data":{"a":2,"b":1},"version":4}'
        answer = a.call("GET", "/v1.0/state/st/k?metadata.contentType=application/json")
        self.assertEqual((answer.status, answer.json, answer.header("ETag")), (200, {"a": 2, "b": 1}, "4"))
        self.assertEqual(server.commands[-1], ["JSON.GET", "app||k"])

    def test_a_server_without_the_modules(self):
        server = SearchServer(has_modules=False)
        self.addCleanup(server.close)
        resource = component("st", "state.redis", {"redisHost": server.host})
        a = self.sidecar("app", resources={"st.yaml": resource})
        answer = self.query(a, {})
        self.assertEqual((answer.status, answer.json["errorCode"]), (500, "ERR_STATE_STORE_NOT_SUPPORTED"))
        bad = component("bad", "state.redis", {"redisHost": server.host, "queryIndexes": json.dumps(INDEXES)})
        a.write("bad.yaml", bad)
        a.wait_log("queryIndexes needs RediSearch and RedisJSON", timeout_s=60)
