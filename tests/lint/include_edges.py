"""Includes point left only: base < loop < net < ... < api < runtime.c (README, "Where things are")."""
import os
import re
import source

LAYERS = ["base", "loop", "net", "tls", "http", "grpc", "observe", "config", "security", "resiliency", "control", "app", "mesh",
          "blocks", "api"]
COMPONENT_LAYERS = LAYERS[:LAYERS.index("config")]
# Headers of libraries and who may see them.
FENCES = {
    r"yaml\.h": ("runtime/base/yaml.c",),
    r"nghttp2/.*": ("runtime/http/",),
    r"zlib\.h": ("runtime/grpc/reader.c",),
    r"openssl/.*": ("runtime/tls/",),
    r"uv\.h": ("runtime/loop/", "runtime/net/", "runtime/config/reload.c", "runtime/cli/"),
    r"read\.h": ("components/common/redis/",),
    r"librdkafka/.*": ("components/common/kafka/",),
    r"sqlite3\.h": ("components/common/sqlite.h", "components/common/sqlite.c"),
}


def allowed(path, included):
    """Whether path may include "included" (a path below runtime/ or the top)."""
    first = included.split("/")[0]
    parts = path.split("/")
    if parts[0] == "components":
        return first == "components" or first in COMPONENT_LAYERS
    if parts[0] == "runtime" and len(parts) == 2 or parts[1] == "cli":
        return True
    if first == "components":
        return parts[1] in ("app", "mesh", "blocks", "api") and included.count("/") == 1
    if first not in LAYERS:
        return False
    return LAYERS.index(first) <= LAYERS.index(parts[1])


def backend_named(path, included):
    """Only the registry may name a back end. One in several files has a folder, which is its alone."""
    if re.match(r"components/common/redis/(?!redis\.h)", included):
        return not path.startswith("components/common/redis/")
    if re.match(r"components/common/kafka/(?!kafka\.h|reader\.h)", included):
        return not path.startswith("components/common/kafka/")
    if path.startswith("components/") and os.path.dirname(path) == os.path.dirname(included):
        return False
    return re.match(r"components/(?!common/)[^/]+/", included) and path != "components/registry.c"


def check(files):
    findings = []
    for path, text in files:
        for match in re.finditer(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', text, re.M):
            place = "%s:%d" % (path, source.line_of(text, match.start(2)))
            if match[1] == '"' and "/" in match[2]:
                if not allowed(path, match[2]) or backend_named(path, match[2]):
                    findings.append("%s: may not include %s" % (place, match[2]))
            for fence, inside in FENCES.items():
                if match[1] == "<" and re.fullmatch(fence, match[2]) and not path.startswith(inside):
                    findings.append("%s: <%s> stays in %s" % (place, match[2], " and ".join(inside)))
    return findings


if __name__ == "__main__":
    source.main(check, [("runtime/base/bad.c", '#include "http/server.h"\n'), ("runtime/mesh/bad.c", "#include <uv.h>\n")])
