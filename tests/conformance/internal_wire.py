"""Messages of dapr.proto.internals.v1 as the recordings spell them: bytes <-> JSON with proto names."""
import base64
import re

VERBS = ["NONE", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
TYPES = {
    "RequestStream": {1: ("request", "Request"), 2: ("payload", "Payload")},
    "ResponseStream": {1: ("response", "Response"), 2: ("payload", "Payload")},
    "Request": {1: ("ver", ["APIVERSION_UNSPECIFIED", "V1"]), 2: ("metadata", "map"), 3: ("message", "InvokeRequest")},
    "Response": {1: ("status", "Status"), 2: ("headers", "map"), 3: ("trailers", "map"), 4: ("message", "InvokeResponse")},
    "InvokeRequest": {1: ("method", str), 2: ("data", "Any"), 3: ("content_type", str), 4: ("http_extension", "Extension")},
    "InvokeResponse": {1: ("data", "Any"), 2: ("content_type", str)},
    "Extension": {1: ("verb", VERBS), 2: ("querystring", str)},
    "Any": {1: ("type_url", str), 2: ("value", bytes)},
    "Status": {1: ("code", int), 2: ("message", str), 3: ("details", ["Any"])},
    "Payload": {1: ("data", bytes), 2: ("seq", int)},
    "Values": {1: ("values", [str])},
    "Entry": {1: ("key", str), 2: ("value", "Values")},
    # what the API takes and gives
    "Invoke": {1: ("id", str), 3: ("message", "InvokeRequest")},
}


def varint(data, at):
    value, shift = 0, 0
    while True:
        byte = data[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at


def fields(data):
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        if tag & 7 == 0:
            value, at = varint(data, at)
        else:
            assert tag & 7 == 2, "wire type %d" % (tag & 7)
            n, at = varint(data, at)
            value, at = data[at:at + n], at + n
            assert len(value) == n, "cut"
        yield tag >> 3, value


def decode(type_, data):
    """As protobuf JSON has it: bytes in base64, zero values left out, messages that are there kept."""
    found = {}
    for number, value in fields(data):
        name, kind = TYPES[type_][number]
        if kind == "map":
            entry = decode("Entry", value)
            found.setdefault(name, {})[entry.get("key", "")] = entry.get("value", {})
        elif kind is str:
            found[name] = value.decode()
        elif kind is bytes:
            found[name] = base64.b64encode(value).decode()
        elif kind is int:
            found[name] = value
        elif isinstance(kind, str):
            found[name] = decode(kind, value)
        elif kind == [str]:
            found.setdefault(name, []).append(value.decode())
        elif kind == ["Any"]:
            found.setdefault(name, []).append(decode("Any", value))
        else:
            found[name] = kind[value] if value < len(kind) else value
    return {n: v for n, v in found.items() if v not in ("", 0) and v != kind_zero(type_, n)}


def kind_zero(type_, name):
    kind = next(k for n, k in TYPES[type_].values() if n == name)
    return kind[0] if isinstance(kind, list) and isinstance(kind[0], str) else None


def raw(text):
    """Bytes of a base64 value, also of one that was shortened: '...(base64 of N bytes)'."""
    short = re.fullmatch(r"([A-Za-z0-9+/]+)\.\.\. \(base64 of (\d+) bytes\)", text)
    if short:
        return base64.b64decode(short[1][:4])[:1] * int(short[2])
    return base64.b64decode(text)


def put_varint(value):
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def put(number, value):
    return put_varint(number << 3 | 2) + put_varint(len(value)) + value


def encode(type_, value):
    out = b""
    for number, (name, kind) in TYPES[type_].items():
        if name not in value:
            continue
        one = value[name]
        if kind == "map":
            for key, values in one.items():
                out += put(number, encode("Entry", {"key": key, "value": values}))
        elif kind is str:
            out += put(number, one.encode())
        elif kind is bytes:
            out += put(number, raw(one))
        elif isinstance(kind, str):
            out += put(number, encode(kind, one))
        elif kind == [str]:
            out += b"".join(put(number, v.encode()) for v in one)
        elif kind == ["Any"]:
            out += b"".join(put(number, encode("Any", v)) for v in one)
        else:
            out += put_varint(number << 3) + put_varint(one if isinstance(one, int) else kind.index(one))
    return out


def message(recorded, type_):
    """The bytes of one recorded message."""
    if "hex" in recorded:
        return bytes.fromhex(recorded["hex"])
    if "json" in recorded:
        return encode(type_, recorded["json"])
    return bytes.fromhex(recorded["hex_start"][:2]) * recorded["bytes"]


def pattern(text):
    """A recorded text as an expression: <ip>, <port:x> and the like stand for anything."""
    return ".+".join(map(re.escape, re.split(r"<[a-z]+(?::[a-z.]+)?>", text)))


def trace_bin(text):
    """base64(0000+<trace>+01+<span>+02+<flags>) as it is on the wire."""
    inner = re.fullmatch(r"base64\(([0-9a-f+]+)\)", text)
    return base64.b64encode(bytes.fromhex(inner[1].replace("+", ""))).decode().rstrip("=") if inner else text


def join(messages, name):
    """(head, bytes) of the messages of a stream, decoded; complains of what breaks a rule of the wire."""
    head, body, seq = messages[0].get(name) if messages else None, b"", 0
    for i, one in enumerate(messages):
        payload = one.get("payload")
        assert i == 0 or not one.get(name), "a second %s: %r" % (name, one)
        if payload is None:
            continue
        piece = raw(payload.get("data", ""))
        assert payload.get("seq", 0) == seq, "seq %d for %d" % (payload.get("seq", 0), seq)
        assert len(piece) <= 2048, "a piece of %d bytes" % len(piece)
        body, seq = body + piece, seq + 1
    return head, body
