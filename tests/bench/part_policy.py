"""What access policies, tokens and routes cost a call: by programs of their own, see bench.program."""
from bench import program, table


def measure(_):
    table(["A judged call", "CPU, µs"], [[row["name"], "%.2f" % row["us"]] for row in program("bench_judge")])
    table(["Where a call goes", "CPU, µs", "table made in, ms"],
          [[row["name"], "%.2f" % row["us"], "%.1f" % row["made_ms"]] for row in program("bench_routes")])
