"""What it costs to pick an instance, however many there are: by a program of its own, see bench.program."""
from bench import program, table


def measure(_):
    table(["To pick, observe and release one of", "CPU, ns"], [[row["name"], "%.0f" % row["ns"]] for row in program("bench_pick")])
