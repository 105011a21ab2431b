"""What rate limits, the adaptive limit and bulkheads cost a call: by a program of its own, see bench.program."""
from bench import program, table


def measure(_):
    table(["A call within limits", "CPU, µs"], [[row["name"], "%.3f" % row["us"]] for row in program("bench_limits")])
