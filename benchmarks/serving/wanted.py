"""The figures that the service is to reach, which the tables show beside what was measured."""

from __future__ import annotations

OF_THE_BARE_LOOP = 0.9  # the peak, of ONNX Runtime's alone
OF_THE_IDEAL = 1.2  # p99, of the ideal queue's; and beside slow clients, of that without them
GOODPUT = 0.9  # under overload, of the peak
REFUSED_WITHIN = 10.0  # milliseconds, p99
OVERLOAD_GROWTH = 64.0  # MB
CLOSED_WITHIN = {"idle": 10.0, "headers": 10.0, "body": 30.0, "reader": 30.0}  # seconds, of slow clients by kind
GROWTH = 16.0  # MB, over all requests of the memory test
