"""Whether the binary exports what the modules want of it: module_symbols.py BINARY MODULE..."""
import subprocess
import sys


def names(file, which):
    text = subprocess.run(["nm", "-D", which, file], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1].split("@")[0] for line in text.splitlines() if line}


def main(binary, *modules):
    exported = names(binary, "--defined-only")
    findings = []
    for module in modules:
        wanted = {name for name in names(module, "--undefined-only") if name.startswith("outr_")}
        if not wanted:
            findings.append("%s wants nothing of the runtime: it has a copy of it" % module)
        findings += ["%s: %s is not in components/module.syms" % (module, name) for name in sorted(wanted - exported)]
        more = {name for name in names(module, "--defined-only") if name.startswith("outr_")}
        if "outr_module" not in more or len(more) != 2:
            findings.append("%s exports %s: one vtable and outr_module are right" % (module, sorted(more)))
    print("\n".join(findings))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
