"""Compares what proto/ compiles to with the tables of the contract, and with the descriptors of the reference, both ways.

  proto_tables.py DESCRIPTOR-SET

Missing, extra, and any difference of number, type, label, oneof, JSON name, deprecation, streaming or file is told, and fails. Without
the contract beside the checkout it is skipped (exit code 77). Fields that the tables mark as later than the release may be there or not."""
import copy
import csv
import itertools
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SHARED = os.path.join(os.path.dirname(TOP), "shared")
SKIPPED = 77
# In the tables, not here.
LEFT_OUT = {"dapr.proto.operator.v1": "Kubernetes only"}
# Not Dapr's: tests/integration/test_tracing.py speaks them with OpenTelemetry's own, test_etcd.py with etcd.
ELSEWHERE = ("opentelemetry.", "etcdserverpb", "mvccpb")
# Descriptors of the reference; the packages of Google and gRPC in them are not in the tables.
REFERENCE = ("golden/wire.binpb", "golden/internal/internal.binpb")
# Server reflection: the tables name the service only. Message, field, number, type, label; the same in both packages.
REFLECTION = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
REFLECTION_FIELDS = """
ServerReflectionRequest host 1 string singular
ServerReflectionRequest file_by_filename 3 string oneof:message_request
ServerReflectionRequest file_containing_symbol 4 string oneof:message_request
ServerReflectionRequest file_containing_extension 5 .ExtensionRequest oneof:message_request
ServerReflectionRequest all_extension_numbers_of_type 6 string oneof:message_request
ServerReflectionRequest list_services 7 string oneof:message_request
ExtensionRequest containing_type 1 string singular
ExtensionRequest extension_number 2 int32 singular
ServerReflectionResponse valid_host 1 string singular
ServerReflectionResponse original_request 2 .ServerReflectionRequest singular
ServerReflectionResponse file_descriptor_response 4 .FileDescriptorResponse oneof:message_response
ServerReflectionResponse all_extension_numbers_response 5 .ExtensionNumberResponse oneof:message_response
ServerReflectionResponse list_services_response 6 .ListServiceResponse oneof:message_response
ServerReflectionResponse error_response 7 .ErrorResponse oneof:message_response
FileDescriptorResponse file_descriptor_proto 1 bytes repeated
ExtensionNumberResponse base_type_name 1 string singular
ExtensionNumberResponse extension_number 2 int32 repeated
ListServiceResponse service 1 .ServiceResponse repeated
ServiceResponse name 1 string singular
ErrorResponse error_code 1 int32 singular
ErrorResponse error_message 2 string singular
"""
# protobuf-c wants the services of components in a file of their own, which the head of that file explains.
COMPONENT_SERVICES = "dapr/proto/components/v1/services.proto"

TYPES = {1: "double", 2: "float", 3: "int64", 4: "uint64", 5: "int32", 8: "bool", 9: "string", 12: "bytes", 13: "uint32"}
TYPE_MESSAGE, TYPE_ENUM, LABEL_REPEATED = 11, 14, 3


# --- descriptors

def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def decode(data):
    """number -> values, bytes or int, in order"""
    fields, at = {}, 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 2:
            size, at = varint(data, at)
            value, at = data[at:at + size], at + size
        else:
            raise ValueError("wire type %d in a descriptor" % (key & 7))
        fields.setdefault(key >> 3, []).append(value)
    return fields


def text(fields, number):
    return fields.get(number, [b""])[-1].decode()


def integer(fields, number):
    return fields.get(number, [0])[-1]


def parts(fields, number):
    return [decode(part) for part in fields.get(number, [])]


def is_deprecated(fields, options, option):
    return any(integer(decode(part), option) for part in fields.get(options, []))


def type_of(field):
    kind, name = integer(field, 5), text(field, 6).lstrip(".")
    return {TYPE_MESSAGE: name, TYPE_ENUM: "enum " + name}.get(kind) or TYPES[kind]


def message(found, file, prefix, body):
    name = prefix + text(body, 1)
    entries = {}  # of maps: name -> its type as the tables write it
    for nested in parts(body, 3):
        if any(integer(options, 7) for options in parts(nested, 7)):
            entries["%s.%s" % (name, text(nested, 1))] = "map<%s;%s>" % tuple(type_of(f) for f in parts(nested, 2))
        else:
            message(found, file, name + ".", nested)
    for enum in parts(body, 4):
        enumeration(found, name + ".", enum)
    oneofs = [text(oneof, 1) for oneof in parts(body, 8)]
    members = [integer(f, 9) for f in parts(body, 2) if 9 in f]
    fields = {}
    for field in parts(body, 2):
        type_, label = type_of(field), "singular"
        if type_ in entries:
            type_, label = entries[type_], "map"
        elif integer(field, 4) == LABEL_REPEATED:
            label = "repeated"
        elif 9 in field:
            index = integer(field, 9)
            is_alone = oneofs[index] == "_" + text(field, 1) and members.count(index) == 1
            label = "optional" if is_alone else "oneof:" + oneofs[index]
        fields[text(field, 1)] = {"number": integer(field, 3), "type": type_, "label": label, "json_name": text(field, 10),
                                  "deprecated": is_deprecated(field, 8, 3)}
    reserved = {n for span in parts(body, 9) for n in range(integer(span, 1), integer(span, 2))}
    found["messages"][name] = {"file": file, "deprecated": is_deprecated(body, 7, 3), "fields": fields, "reserved": reserved,
                               "reserved names": {n.decode() for n in body.get(10, [])}}


def enumeration(found, prefix, body):
    found["enums"][prefix + text(body, 1)] = {text(value, 1): integer(value, 2) for value in parts(body, 2)}


def from_descriptors(data, files=None):
    """What a FileDescriptorSet holds, but Google's well-known types; files collects the names and syntaxes of its files."""
    found = {"messages": {}, "enums": {}, "services": {}}
    for file in parts(decode(data), 1):
        name, package = text(file, 1), text(file, 2)
        if package == "google.protobuf" or package.startswith(ELSEWHERE):
            continue
        if files is not None:
            files[name] = text(file, 12)
        prefix = package + "." if package else ""
        for body in parts(file, 4):
            message(found, name, prefix, body)
        for body in parts(file, 5):
            enumeration(found, prefix, body)
        for service in parts(file, 6):
            found["services"][prefix + text(service, 1)] = {
                text(method, 1): {"request": text(method, 2).lstrip("."), "response": text(method, 3).lstrip("."),
                                  "client streaming": bool(integer(method, 5)), "server streaming": bool(integer(method, 6)),
                                  "deprecated": is_deprecated(method, 4, 33), "file": name}
                for method in parts(service, 2)}
    return found


# --- tables

def rows(name):
    """Rows with notes split up and the full name of what they are about, but those of left-out packages."""
    with open(os.path.join(SHARED, "contract", name), encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["package"] not in LEFT_OUT and row["package"] != "(any)":
                row["prefix"] = "" if row["package"] == "(none)" else row["package"] + "."
                row["notes"] = (row.get("notes") or "").split("; ")
                yield row


def noted(row, start):
    return next((note[len(start):] for note in row["notes"] if note.startswith(start)), None)


def camel(name):
    return re.sub("_(.)", lambda match: match[1].upper(), name)


def reflection_rows():
    """As rows gives them."""
    for package in REFLECTION:
        file = "file %s/reflection.proto" % package.replace(".", "/")
        for line in REFLECTION_FIELDS.strip().split("\n"):
            message_, field, number, type_, label = line.split(" ")
            yield {"prefix": package + ".", "message": message_, "field": field, "number": number, "label": label,
                   "type": package + type_ if type_[0] == "." else type_, "notes": [file]}


def from_tables():
    """The same form as from_descriptors, plus "later": what came after the release, as (message, field) and the like."""
    found = {"messages": {}, "enums": {}, "services": {}, "later": set()}
    for row in itertools.chain(rows("grpc-messages.csv"), reflection_rows()):
        name, field = row["prefix"] + row["message"], row["field"]
        is_later = "after v1.18" in row["notes"]
        if is_later:
            found["later"] |= {(name, field)} | ({(name, None)} if name not in found["messages"] else set())
        entry = found["messages"].setdefault(name, {"file": None, "deprecated": False, "fields": {}, "reserved": set(),
                                                    "reserved names": set()})
        entry["file"] = noted(row, "file ") or entry["file"]
        entry["deprecated"] |= "message deprecated" in row["notes"]
        unused = re.fullmatch(r"\(reserved name (\w+)\)", field)
        if unused:
            entry["reserved names"].add(unused[1])
        elif field == "(reserved)":
            entry["reserved"].add(int(row["number"]))
        elif field != "(no fields)":
            entry["fields"][field] = {"number": int(row["number"]), "type": row["type"], "label": row["label"],
                                      "json_name": noted(row, "json_name=") or camel(field),
                                      "deprecated": "deprecated" in row["notes"]}
    for row in rows("grpc-enums.csv"):
        name, value = row["prefix"] + row["enum"], row["value_name"].split(" ")[0]
        if "after v1.18" in row["value_name"]:
            found["later"].add((name, value))
        found["enums"].setdefault(name, {})[value] = int(row["number"])
    for row in rows("grpc-methods.csv"):
        file = (noted(row, "file ") or "").strip()
        if row["package"] == "dapr.proto.components.v1":
            file = COMPONENT_SERVICES
        elif row["package"] in REFLECTION:
            file = row["package"].replace(".", "/") + "/reflection.proto"
        found["services"].setdefault(row["prefix"] + row["service"], {})[row["method"]] = {
            "request": row["request"], "response": row["response"], "client streaming": row["client_streaming"] == "true",
            "server streaming": row["server_streaming"] == "true", "file": file,
            "deprecated": row["status"] == "deprecated" and "not marked deprecated in the descriptor" not in row["notes"]}
    return found


# --- comparison

def differences(where, wanted, got):
    return ["%s: %s is %s, not %s" % (where, key, got[key], wanted[key]) for key in wanted
            if key != "fields" and wanted[key] is not None and wanted[key] != got[key]]


def compare(wanted, got, source, is_whole=True):
    """Findings; is_whole: what is not in wanted must not be in got either, as far as whole messages and services go."""
    findings, later = [], wanted.get("later", set())

    def names(kind, outer, here, there, is_both_ways):
        for name in sorted(set(here) - set(there)):
            if (outer or name, name if outer else None) not in later:
                findings.append("%s %s: missing, it is in %s" % (kind, "%s.%s" % (outer, name) if outer else name, source))
        for name in sorted(set(there) - set(here)) if is_both_ways else []:
            findings.append("%s %s: not in %s" % (kind, "%s.%s" % (outer, name) if outer else name, source))
        return sorted(set(here) & set(there))

    for name in names("message", None, wanted["messages"], got["messages"], is_whole):
        here, there = wanted["messages"][name], got["messages"][name]
        findings += differences(name, here, there)
        for field in names("field", name, here["fields"], there["fields"], True):
            findings += differences("%s.%s" % (name, field), here["fields"][field], there["fields"][field])
    for name in names("enum", None, wanted["enums"], got["enums"], is_whole):
        here, there = wanted["enums"][name], got["enums"][name]
        for value in names("value", name, here, there, True):
            if here[value] != there[value]:
                findings.append("%s.%s is %d, not %d" % (name, value, there[value], here[value]))
    for name in names("service", None, wanted["services"], got["services"], is_whole):
        here, there = wanted["services"][name], got["services"][name]
        for method in names("method", name, here, there, True):
            findings += differences("%s/%s" % (name, method), here[method], there[method])
    return findings


def of_reference(path):
    """The reference's descriptors in the same form, without the recordings' own test service."""
    with open(os.path.join(SHARED, path), "rb") as file:
        found = from_descriptors(file.read())
    for kind in found:
        found[kind] = {name: body for name, body in found[kind].items() if not name.startswith("golden.")}
    return found


def check(got, tables, references):
    """All findings. Packages of others, which only the references describe, are foreign to the tables."""
    foreign = {kind: set() for kind in ("messages", "enums", "services")}
    findings = []
    for path, reference in references.items():
        findings += compare(reference, got, path, is_whole=False)
        for kind in foreign:
            foreign[kind] |= {name for name in reference[kind] if name.startswith(("google.", "grpc."))}
    rest = {kind: {name: body for name, body in got[kind].items() if name not in foreign[kind]} for kind in foreign}
    return findings + compare(tables, rest, "the tables")


# --- does the comparison notice?

def mutants(good):
    """(what was done, a spoilt copy)"""
    message_, field = "dapr.proto.runtime.v1.GetStateRequest", "consistency"
    enum = "dapr.proto.runtime.v1.UnlockResponse.Status"
    service, method = "dapr.proto.runtime.v1.Dapr", "GetState"

    def spoilt(kind, name, change):
        copied = copy.deepcopy(good)
        change(copied[kind] if name is None else copied[kind][name])
        return copied
    for key, value in (("number", 99), ("type", "string"), ("label", "optional"), ("json_name", "x"), ("deprecated", True)):
        yield "%s of a field" % key, spoilt("messages", message_, lambda m: m["fields"][field].update({key: value}))
    yield "field gone", spoilt("messages", message_, lambda m: m["fields"].pop(field))
    yield "field more", spoilt("messages", message_, lambda m: m["fields"].update({"x": dict(m["fields"][field], number=99)}))
    yield "file of a message", spoilt("messages", message_, lambda m: m.update(file="x.proto"))
    yield "message deprecated", spoilt("messages", message_, lambda m: m.update(deprecated=True))
    yield "number reserved", spoilt("messages", message_, lambda m: m["reserved"].add(99))
    yield "name reserved", spoilt("messages", message_, lambda m: m["reserved names"].add("x"))
    yield "reserved number free", spoilt("messages", "HistoryEvent", lambda m: m["reserved"].remove(18))
    yield "message gone", spoilt("messages", None, lambda m: m.pop(message_))
    yield "message more", spoilt("messages", None, lambda m: m.update({"dapr.proto.runtime.v1.X": m[message_]}))
    yield "message of a foreign package gone", spoilt("messages", None, lambda m: m.pop("google.rpc.ErrorInfo"))
    yield "field of a foreign package", spoilt("messages", "google.rpc.ErrorInfo", lambda m: m["fields"].pop("domain"))
    yield "field of reflection", spoilt("messages", "grpc.reflection.v1alpha.ErrorResponse", lambda m: m["fields"].pop("error_code"))
    yield "value of an enum", spoilt("enums", enum, lambda e: e.update(SUCCESS=9))
    yield "value gone", spoilt("enums", enum, lambda e: e.pop("INTERNAL_ERROR"))
    yield "enum gone", spoilt("enums", None, lambda e: e.pop(enum))
    yield "enum more", spoilt("enums", None, lambda e: e.update({"X": e[enum]}))
    for key, value in (("request", "x"), ("response", "x"), ("client streaming", True), ("server streaming", True),
                       ("deprecated", True), ("file", "x.proto")):
        yield "%s of a method" % key, spoilt("services", service, lambda s: s[method].update({key: value}))
    yield "method gone", spoilt("services", service, lambda s: s.pop(method))
    yield "method more", spoilt("services", service, lambda s: s.update(X=s[method]))
    yield "service gone", spoilt("services", None, lambda s: s.pop(service))
    yield "service more", spoilt("services", None, lambda s: s.update({"dapr.proto.runtime.v1.X": s[service]}))


def main():
    if not os.path.isdir(os.path.join(SHARED, "contract")):
        print("skipped: no contract beside the checkout")
        return SKIPPED
    files = {}
    with open(sys.argv[1], "rb") as file:
        got = from_descriptors(file.read(), files)
    tables, references = from_tables(), {path: of_reference(path) for path in REFERENCE}
    findings = check(got, tables, references)
    findings += ["%s: syntax %r, not proto3" % (name, syntax) for name, syntax in files.items() if syntax != "proto3"]
    if not findings:
        findings = ["the comparison does not notice: " + what for what, bad in mutants(got) if not check(bad, tables, references)]
    for finding in findings:
        print(finding)
    if not findings:
        print("%d messages, %d fields, %d enums, %d methods as in the tables" % (
            len(got["messages"]), sum(len(m["fields"]) for m in got["messages"].values()), len(got["enums"]),
            sum(len(s) for s in got["services"].values())))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
