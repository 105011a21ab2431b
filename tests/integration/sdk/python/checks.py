"""Runs checks one after the other and says how each ended, in the form that run.py reads."""
import asyncio
import inspect
import sys
import traceback

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def run_all(*arguments):
    for function in CHECKS:
        try:
            result = function(*arguments)
            if inspect.isawaitable(result):
                asyncio.run(result)
        except BaseException as error:  # noqa: B902: a check may end in any way
            traceback.print_exc()
            text = " ".join(("%s: %s" % (type(error).__name__, error)).split())
            print("FAIL %s: %s" % (function.__name__, text[:600]), flush=True)
        else:
            print("ok %s" % function.__name__, flush=True)
    print("end", flush=True)
    sys.stdout.flush()


def equal(actual, expected):
    assert actual == expected, "%r instead of %r" % (actual, expected)
