"""Functions that another process can import."""

import os
import time


def double(x):
    return 2 * x, 0.9


def fail(x):
    if x == "bad":
        raise KeyError(x)
    return x, 0.9


def sleep(seconds):
    time.sleep(seconds)
    return "awake", 0.9


def whoami(x):
    time.sleep(0.01)
    return os.getpid(), 0.9
