"""Functions that this tree does without: unbounded, locale-bound, not reentrant or silent about errors."""
import re
import source

NAMES = ("strcpy strcat strncpy sprintf vsprintf strtok atoi atol atoll strtol strtoll strtoul strtoull localtime gmtime ctime asctime "
         "rand srand random gets alloca system popen tmpnam mktemp").split()
CALL = re.compile(r"(?<![\w.>])(%s)\s*\(" % "|".join(NAMES))


def check(files):
    findings = []
    for path, text in files:
        for match in CALL.finditer(source.code_only(text)):
            findings.append("%s:%d: %s is not used here" % (path, source.line_of(text, match.start()), match[1]))
    return findings


if __name__ == "__main__":
    source.main(check, [("bad.c", "int x = atoi(text); /* strcpy( */\n")])
