"""Length of files and lines, no leftovers, nothing of one machine."""
import re
import source

LINES_MAX = 1000
COLUMNS_MAX = 100
LEFTOVERS = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
MACHINE = re.compile(r"(?<![\w.])/(work|root)/|/tmp/b-")


def check(files):
    findings = []
    for path, text in files:
        lines = text.split("\n")
        if len(lines) > LINES_MAX and "lines because" not in text[:2000]:
            findings.append("%s: %d lines and no reason in its head comment" % (path, len(lines)))
        for number, line in enumerate(lines, 1):
            if len(line) > COLUMNS_MAX and not re.match(r"\s*X\(", line):  # a row of a table is one line
                findings.append("%s:%d: %d columns" % (path, number, len(line)))
            if LEFTOVERS.search(line) or MACHINE.search(line):
                findings.append("%s:%d: %s" % (path, number, line.strip()))
            if line.endswith((" ", "\t")) or "\t" in line:
                findings.append("%s:%d: a tab, or space at the end" % (path, number))
    return findings


if __name__ == "__main__":
    source.main(check, [("bad.c", "/* TODO */\n" + "x" * 120 + "\n")])
