"""Settings that all tests share."""

from __future__ import annotations

import hypothesis

# A shared machine is no stopwatch: examples are not failed for being slow.
hypothesis.settings.register_profile("cascade", deadline=None, print_blob=True)
hypothesis.settings.load_profile("cascade")
