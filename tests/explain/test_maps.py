"""Maps equal what their papers say, and captum's where it has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam, Occlusion
from torch import Tensor, nn

from plusx.engines.features import pooled_features
from plusx.engines.looks import VIEWS
from plusx.engines.torch_engine import TorchEngine, build
from plusx.errors import UsageError
from plusx.explain import windows
from plusx.explain.cam import PooledHead, class_activation, pooled_head
from plusx.explain.evidence import contrasts
from plusx.explain.explainer import Explainer, fresh, in_memory, shown
from plusx.explain.grad_cam import grad_cam, last_convolution
from plusx.explain.occlusion import occlusion
from plusx.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from plusx.model_file import Header, ModelFile
from plusx.models.normalise import Normalised

CPU, SIZE = torch.device("cpu"), 64
RESNET: dict[str, Any] = {"name": "resnet10", "width": 0.25, "stem": "whitened", "downsampling": "pool"}
VGG: dict[str, Any] = {"name": "vgg11", "width": 0.1}


def network_of(arguments: dict[str, Any], classes: int = 3) -> Normalised:
    """A network whose maps differ from place to place and class to class."""
    torch.manual_seed(3)
    network = build(arguments, classes, IMAGENET_MEAN, IMAGENET_STD).eval().requires_grad_(False)
    for name, value in network.named_parameters():
        if name.endswith(("fc.weight", "classifier.6.weight", "classifier.3.weight", "classifier.0.weight")):
            value.copy_(torch.randn_like(value) / value.shape[1] ** 0.5)
    return network


def file_of(arguments: dict[str, Any], views: tuple[str, ...] = tuple(VIEWS), classes: int = 3) -> ModelFile:
    tensors = {name: value.numpy() for name, value in network_of(arguments, classes).state_dict().items()}
    names = tuple(f"class {i}" for i in range(classes))
    return ModelFile(Header(names, Preprocess(SIZE, SIZE), arguments, views=views), tensors)


@pytest.fixture
def images() -> Tensor:
    """Two photos of noise with a bright square each, [2, 3, 64, 64]."""
    made = torch.rand((2, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(5)) * 120
    made[0, :, 8:30, 30:60] += 130
    made[1, :, 36:60, 4:24] += 130
    return made


def test_the_mean_of_a_class_activation_map_is_the_logit(images: Tensor) -> None:
    network = network_of(RESNET)
    head = pooled_head(network, SIZE)
    assert head == PooledHead("network.layer4", "network.fc")
    for label in range(3):
        one = nn.functional.one_hot(torch.tensor([label, label]), 3).float()
        maps = class_activation(network, head, images, one)
        assert maps.shape == (2, 2, 2)
        torch.testing.assert_close(maps.mean((1, 2)), network(images)[:, label], rtol=1e-5, atol=1e-5)


def test_the_contrast_of_two_classes_is_the_log_of_the_odds(images: Tensor) -> None:
    network = network_of(RESNET, 2)
    head = pooled_head(network, SIZE)
    assert head is not None
    maps = class_activation(network, head, images, torch.from_numpy(contrasts(np.array([1, 0]), 2)))
    chances = network(images).softmax(1)
    odds = torch.stack([chances[0, 1] / chances[0, 0], chances[1, 0] / chances[1, 1]]).log()
    torch.testing.assert_close(maps.mean((1, 2)), odds, rtol=1e-4, atol=1e-5)
    assert contrasts(np.array([1]), 3).tolist() == [[-0.5, 1.0, -0.5]]


@pytest.mark.parametrize(("arguments", "layer"), [(RESNET, "network.layer4"), (VGG, "network.features.18")])
def test_grad_cam_equals_captum(arguments: dict[str, Any], layer: str, images: Tensor) -> None:
    network = network_of(arguments)
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # captum would be given what the ReLU leaves of the maps
    with torch.enable_grad():
        network.requires_grad_(True)
        theirs = (
            LayerGradCam(network, network.get_submodule(layer))
            .attribute(images, target=torch.tensor([2, 1]), relu_attributions=True)
            .detach()
        )
    network.requires_grad_(False)
    ours = grad_cam(network, layer, images, nn.functional.one_hot(torch.tensor([2, 1]), 3).float())
    assert theirs.max() > 1e-3
    torch.testing.assert_close(ours, theirs[:, 0], rtol=0, atol=1e-4 * float(theirs.max()))


def test_grad_cam_takes_the_maps_before_a_relu_that_works_in_place(images: Tensor) -> None:
    network = network_of(VGG)
    layer, one = last_convolution(network), torch.eye(3)[:2]
    assert layer == "network.features.18"
    in_place = grad_cam(network, layer, images, one)
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    torch.testing.assert_close(in_place, grad_cam(network, layer, images, one))


def test_grad_cam_behind_global_average_pooling_is_what_is_positive_of_the_class_activation_map(
    images: Tensor,
) -> None:
    network = network_of(RESNET)
    fc: Any = network.network.fc
    fc.bias.zero_()
    head, one = pooled_head(network, SIZE), torch.eye(3)[1:]
    assert head is not None
    cam = class_activation(network, head, images, one)
    places = cam[0].numel()
    torch.testing.assert_close(grad_cam(network, head.maps, images, one) * places, cam.relu(), rtol=1e-4, atol=1e-5)


def test_occlusion_equals_captum(images: Tensor) -> None:
    network, fill = network_of(RESNET), (124, 116, 104)
    pixels = images.round().to(torch.uint8)[:1]

    def answer(photos: np.ndarray[Any, Any]) -> Any:
        return network(torch.from_numpy(photos).permute(0, 3, 1, 2)).softmax(1).numpy()

    ours = occlusion(answer, pixels[0].permute(1, 2, 0).numpy(), 1, fill, 16, 8)
    theirs = Occlusion(lambda x: network(x).softmax(1)).attribute(
        pixels.float(),
        target=1,
        sliding_window_shapes=(3, 16, 16),
        strides=(3, 8, 8),
        baselines=torch.tensor(fill).float().view(1, 3, 1, 1).expand(1, 3, SIZE, SIZE),
    )
    assert abs(ours).max() > 1e-5
    np.testing.assert_allclose(ours, theirs[0, 0].numpy(), rtol=0, atol=1e-6)


def test_auto_takes_the_exact_map_where_the_network_allows_it_and_refusals_say_what_does() -> None:
    def method(arguments: dict[str, Any], asked: str = "auto") -> str:
        model = file_of(arguments)
        return Explainer(model, TorchEngine(model, CPU), asked).method

    assert method(RESNET) == "cam"
    assert method(RESNET, "grad-cam") == "grad-cam"
    assert pooled_head(nn.Sequential(nn.Conv2d(3, 2, 1)), SIZE) is None
    assert method({"name": "resnet50", "width": 0.125}) == "cam"
    assert method(VGG) == method({"name": "alexnet", "width": 0.1}) == "grad-cam"
    with pytest.raises(UsageError, match=r"vgg11 does not end in global average pooling .*; use --method grad-cam"):
        method(VGG, "cam")
    with pytest.raises(UsageError, match=r"no method 'gradcam'; the methods are .* Did you mean grad-cam\?"):
        method(RESNET, "gradcam")


def test_the_map_of_a_mirrored_photo_is_the_mirrored_map(images: Tensor) -> None:
    model = file_of(RESNET)
    explainer = Explainer(model, TorchEngine(model, CPU))
    pixels = images.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for views in (("identity", "flip"), ("identity", "flip", "closer", "closer-flip")):
        looks = windows.of_views(views)
        contrast = torch.from_numpy(contrasts(np.array([0, 1]), 3))

        def joined(photos: np.ndarray[Any, Any], looks: Any = looks, contrast: Tensor = contrast) -> Any:
            tensor = explainer.engine.images(photos)
            assert explainer._map is not None
            maps = ((look, in_memory(explainer._map(shown(tensor, look, SIZE), contrast))) for look in looks)
            return windows.joined(maps)

        straight = joined(pixels)
        np.testing.assert_allclose(joined(pixels[:, :, ::-1])[:, :, ::-1], straight, atol=1e-3 * abs(straight).max())


def test_log_odds_are_the_mean_over_the_views_of_the_answer(images: Tensor) -> None:
    model = file_of(RESNET, classes=2)
    explainer, network = Explainer(model, TorchEngine(model, CPU)), network_of(RESNET, 2)
    pixels = images.round().to(torch.uint8)
    evidence = explainer.evidence(pixels.permute(0, 2, 3, 1).numpy(), np.array([0, 1]))
    looks = [shown(pixels, look, SIZE) for look in windows.of_views(model.header.views)]
    logits = torch.stack([network(look) for look in looks]).mean(0)
    expected = [logits[0, 0] - logits[0, 1], logits[1, 1] - logits[1, 0]]
    np.testing.assert_allclose(evidence.log_odds, expected, rtol=1e-3, atol=1e-4)
    assert evidence.maps.shape == (2, windows.GRID, windows.GRID)


def test_one_view_keeps_the_mean_of_its_map_and_a_window_lies_where_it_looked() -> None:
    maps = np.array([[[1.0, 2.0], [3.0, 8.0]]])
    whole = windows.joined([(windows.Window(0, 0, 1.0, mirrored=False), maps)])
    assert whole.mean() == pytest.approx(3.5)
    assert whole[0, -1, -1] == pytest.approx(8)
    assert whole[0, 0, 0] == pytest.approx(1)
    mirrored = windows.joined([(windows.Window(0, 0, 1.0, mirrored=True), maps)])
    np.testing.assert_allclose(mirrored, whole[:, :, ::-1])
    corner = windows.joined([(windows.Window(0.5, 0.5, 0.5, mirrored=False), maps)])
    assert abs(corner[0, :32]).max() == 0
    assert corner[0, 40:, 40:].min() >= 1


def test_an_untrained_network_is_another_for_each_number_and_the_same_again() -> None:
    model = file_of(RESNET)
    first, again, second = (fresh(model, number).tensors["network.fc.weight"] for number in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert abs(first - second).max() > 0.01
    assert abs(first - model.tensors["network.fc.weight"]).max() > 0.01


def test_features_of_the_folded_network_are_those_of_the_trained_one(images: Tensor) -> None:
    network = network_of(RESNET)
    resnet: Any = network.network
    pooled = resnet.pooled(network.normalise(images))
    torch.testing.assert_close(pooled_features(network, images, SIZE), pooled)
    model = replace(file_of(RESNET))
    pixels = images.round().to(torch.uint8)
    features = TorchEngine(model, CPU).features(pixels.permute(0, 2, 3, 1).numpy())
    expected = nn.functional.normalize(resnet.pooled(network.normalise(pixels)))
    np.testing.assert_allclose(features, expected, atol=1e-5)
    with pytest.raises(UsageError, match="no fully connected layer at its end"):
        pooled_features(nn.Conv2d(3, 2, 1), images, SIZE)


def test_maps_leave_their_device_before_they_become_float64_which_some_have_not() -> None:
    class Map32(torch.Tensor):
        """A map on a device without float64."""

        def double(self) -> torch.Tensor:
            raise TypeError("no float64 here")

        def cpu(self) -> torch.Tensor:
            return self.as_subclass(torch.Tensor)

    values = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(in_memory(values.as_subclass(Map32)), values.numpy())
    assert in_memory(values.bfloat16()).dtype == np.float32
