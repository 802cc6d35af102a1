"""A block as the identity, and networks made deeper without changing what they compute."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from plusx.lab import chain, growth
from tests.lab.test_chain import PIXELS, network

GENERATOR = torch.Generator().manual_seed(5)
BOTH_SIGNS = torch.randn(6, 4, 8, 8, generator=GENERATOR)
POSITIVE = BOTH_SIGNS.relu()


def test_a_residual_block_without_its_branch_is_the_identity_where_nothing_is_negative() -> None:
    block = copy.deepcopy(chain.blocks(network("resnet20"))[1])
    growth.silence_(block)
    assert growth.sameness(block, POSITIVE) == growth.Sameness(
        POSITIVE.numel(), POSITIVE.numel(), int((POSITIVE == 0).sum()), 0.0
    )
    found = growth.sameness(block, BOTH_SIGNS)
    assert found.equal == int((BOTH_SIGNS >= 0).sum()) < found.values
    assert found.largest == float(-BOTH_SIGNS.min())


def test_it_is_so_in_training_too() -> None:
    block = copy.deepcopy(chain.blocks(network("resnet20"))[1]).train()
    growth.silence_(block)
    with torch.no_grad():
        assert torch.equal(block(POSITIVE), POSITIVE)


def test_a_plain_block_without_its_branch_gives_zeros() -> None:
    block = copy.deepcopy(chain.blocks(network("plain20"))[1])
    growth.silence_(block)
    found = growth.sameness(block, POSITIVE)
    assert found.zeros == found.values
    assert found.equal == int((POSITIVE == 0).sum())
    assert found.largest == float(POSITIVE.max())


def test_a_plain_block_with_unit_kernels_passes_on_what_is_not_negative() -> None:
    block: Any = copy.deepcopy(chain.blocks(network("plain20"))[1])
    growth.pass_on_(block, torch.zeros(4), torch.full((4,), 1 - block.bn1.eps))
    found = growth.sameness(block, POSITIVE)
    assert (found.equal, found.largest) == (found.values, 0.0)
    assert growth.sameness(block, BOTH_SIGNS).equal == int((BOTH_SIGNS >= 0).sum())


def test_norms_that_undo_themselves_pass_maps_on_in_training_and_in_use() -> None:
    block: Any = copy.deepcopy(chain.blocks(network("plain20"))[1])
    of_channels = POSITIVE.transpose(0, 1).flatten(1)
    growth.pass_on_(block, of_channels.mean(dim=1), of_channels.var(dim=1))
    with torch.no_grad():
        torch.testing.assert_close(block.eval()(POSITIVE), POSITIVE, atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(block.train()(POSITIVE), POSITIVE, atol=2e-2, rtol=2e-2)  # n against n - 1


def test_sums_of_comparisons_count_all_values_and_keep_the_largest_difference() -> None:
    one, other = growth.Sameness(10, 4, 2, 0.5), growth.Sameness(5, 5, 1, 0.25)
    assert one + other == growth.Sameness(15, 9, 3, 0.5)


def test_added_blocks_stand_at_the_end_of_every_stage() -> None:
    deep, shallow = network("plain32"), network("plain20")
    names = {id(module): name for name, module in deep.named_modules()}
    found = [(number, names[id(block)]) for number, block in growth.added(deep, shallow)]
    assert found == [(stage, f"network.layer{stage + 1}.{place}") for stage in range(3) for place in (3, 4)]


def test_a_plain_network_can_be_constructed_that_computes_what_a_shallower_one_does() -> None:
    shallow, deep = network("plain20"), network("plain32")
    before = {name: value.clone() for name, value in shallow.state_dict().items()}
    growth.construct_(deep, shallow, PIXELS)
    with torch.inference_mode():
        torch.testing.assert_close(deep(PIXELS), shallow(PIXELS), atol=1e-4, rtol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in shallow.state_dict().items())


@pytest.mark.parametrize("kind", ["resnet", "plain"])
def test_blocks_as_initialised_change_the_function(kind: str) -> None:
    shallow, deep = network(f"{kind}20"), network(f"{kind}32")
    growth.lay_in_(deep, shallow)
    with torch.inference_mode():
        assert not torch.allclose(deep(PIXELS), shallow(PIXELS), atol=0.1)
        for _, block in growth.added(deep, shallow):
            growth.silence_(block)
        assert torch.equal(deep(PIXELS), shallow(PIXELS)) == (kind == "resnet")
        assert isinstance(block.last_norm, nn.BatchNorm2d)
