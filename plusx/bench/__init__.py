"""How fast this machine is, what a training step asks of it, and where the step's time goes."""

from plusx.bench.ceilings import DTYPES, Ceilings, Clock
from plusx.bench.cost import Cost, convolutions, cost_of
from plusx.bench.parts import PARTS, timed_step

__all__ = ["DTYPES", "PARTS", "Ceilings", "Clock", "Cost", "convolutions", "cost_of", "timed_step"]
