"""What the lint scripts share: the source files, without comments and strings, and how a finding is told."""
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PRODUCT = ("runtime", "components", "sdk")


def files(top, folders=PRODUCT, endings=(".c", ".h")):
    """(path below top, text) of every file, sorted."""
    for folder in folders:
        for place, _, names in sorted(os.walk(os.path.join(top, folder))):
            for name in sorted(names):
                if name.endswith(endings):
                    path = os.path.join(place, name)
                    with open(path, encoding="utf-8") as file:
                        yield os.path.relpath(path, top), file.read()


def code_only(text):
    """The text with comments and the insides of literals blanked; lines stay where they are."""
    def blank(match):
        found = match.group(0)
        if found[0] in "\"'":
            return found[0] + " " * (len(found) - 2) + found[-1]
        return re.sub(r"[^\n]", " ", found)
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text, flags=re.S)


def finish(findings, self_test):
    """self_test: findings of a sample that must have some. Exit code for the caller."""
    if not self_test:
        print("this check does not notice its own bad sample")
        return 1
    for finding in findings:
        print(finding)
    return 1 if findings else 0


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def main(check, sample):
    """check(iterable of (path, text)) gives findings; sample is such an iterable, with faults in it."""
    sys.exit(finish(check(files(TOP)), check(sample)))
