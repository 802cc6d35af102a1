"""The lab: experiments that show why the "+ x" matters, by the networks, data and training of everything else.

    plusx lab degradation cifar10.tar

An experiment is a module with a function `run(lab) -> Result`, and `networks(lab)` where it trains any. What it needs,
trained networks, photos, and a memory for what was measured, it asks of the `Lab`.
"""
