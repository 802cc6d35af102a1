"""Networks by what makes them."""

from __future__ import annotations

import json

import pytest

from plusx.lab.network import Network, folder_name
from plusx.recipes import recipe

BASE = recipe("cifar")


def test_a_name_tells_model_departures_length_and_seed() -> None:
    network = Network("plain20", 3, (("width", 0.5), ("weights", "a/b")), steps=40)
    assert network.name == "plain20-width-0.5-40-steps-seed-3"
    assert Network("resnet56").name == "resnet56-seed-0"


def test_its_settings_lie_over_those_of_the_lab() -> None:
    config = Network("plain20", 3, (("width", 0.5),)).config(BASE)
    assert (config.model, config.seed, config.width, config.split_seed) == ("plain20", 3, 0.5, 0)
    assert config.batch_size == BASE.batch_size


def test_a_time_takes_the_place_of_epochs() -> None:
    config = Network("plain20", time=7.0).config(BASE)
    assert (config.time, config.epochs) == (7.0, None)
    assert Network("plain20", time=7.0).alone
    assert not Network("plain20", epochs=2).alone


@pytest.mark.parametrize(
    "network",
    [Network("plain20"), Network("a", 2, (("sizes", ((0.5, 0.5), (0.5, 1.0))), ("norm", "none")), watched=False)],
)
def test_it_survives_json(network: Network) -> None:
    again = Network.from_json(json.loads(json.dumps(network.to_json())))
    assert again.config(BASE) == network.config(BASE)
    assert again.name == network.name


def test_the_folder_differs_with_everything_that_is_learned_and_with_nothing_else() -> None:
    network = Network("plain20")

    def folder(base: object = BASE, steps: int = 10, photos: str = "a", network: Network = network) -> str:
        return folder_name(network, network.config(base), steps, photos)  # type: ignore[arg-type]

    assert folder() == folder(BASE.model_copy(update={"device": "cpu", "workers": 3}))
    others = [folder(BASE.model_copy(update={"weight_decay": 0.5})), folder(steps=11), folder(photos="b")]
    assert len({folder(), *others, folder(network=Network("plain20", watched=False))}) == 5
