"""A trained network rewritten to answer faster: the same function, up to rounding.

In evaluation a batch norm is a scale and a shift per channel, so it goes into the convolution before it; a ReLU and
the addition of a shortcut are computed while that convolution's results are still at hand, where oneDNN can.
Only what answers is rewritten: files, training and validation know the network as it was trained.
"""

from __future__ import annotations

import operator
import platform
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_X86 = ("x86_64", "AMD64")
_USUAL_BATCH = 32
_SUMS = (operator.add, operator.iadd)
_OPS = ("_convolution_pointwise", "_reorder_convolution_weight")


def folded(network: nn.Module) -> fx.GraphModule:
    """`network`, in evaluation mode, without the batch norms that follow a convolution, and without what does nothing.

    The network given is left as it is. It must be one whose operations do not depend on the values it sees, as all
    of `plusx.models` are.
    """
    tracer = _Tracer()
    graph = tracer.trace(network)
    # Not deep-copied: folding puts new convolutions beside the old ones, and changes no tensor.
    made = fx.GraphModule(network, graph)
    for node in list(graph.nodes):
        if isinstance(module := _module(node), nn.Identity | nn.Dropout):
            _replace(node, node.args[0])
        elif type(module) is nn.BatchNorm2d:  # a subclass may do more
            _fold_norm(made, node)
    made.delete_all_unused_submodules()
    made.recompile()
    return made


def fuses(device: torch.device) -> bool:
    """Whether `device` computes a convolution with what follows it: x86 processors, by oneDNN inside PyTorch.

    These operations are what `torch.compile` itself calls there; they are not documented, so they are looked for.
    """
    there = all(hasattr(torch.ops.mkldnn, name) for name in _OPS)
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return device.type == "cpu" and platform.machine() in _X86 and built and there


def fuses_bf16() -> bool:
    """Whether oneDNN computes these convolutions in bf16 on this processor: x86 with AVX-512."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def fused(network: fx.GraphModule, dtype: torch.dtype) -> fx.GraphModule:
    """A folded network whose convolutions compute the sum and the ReLU behind them, in `dtype`, up to the last one.

    What follows the last convolution (pooling, the fully connected head) is float32. Changes `network`.
    """
    graph = network.graph
    for node in list(graph.nodes):
        if isinstance(_module(node), nn.ReLU):
            _fuse_relu(network, _before_pool(node), dtype)
    graph.eliminate_dead_code()  # a convolution whose sum was fused with it
    for node in list(graph.nodes):
        if isinstance(module := _module(node), nn.Conv2d):
            _put(network, node, node, FusedConv(module, dtype, "none"), node.args)
        elif isinstance(module, nn.MaxPool2d):
            _put(network, node, node, SlicedMaxPool(module), node.args)
    _end_in_float32(graph)
    graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.recompile()
    return network


class FusedConv(nn.Module):
    """A convolution of [B, in, H, W] -> [B, out, h, w], plus `other` where it is given, then `after` ("relu", "none").

    Weights lie as oneDNN wants them for the first images it sees; others are answered for, too.
    """

    def __init__(self, conv: Any, dtype: torch.dtype, after: str) -> None:
        super().__init__()
        self.after, self.dtype = after, dtype
        self.bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self.geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.weight = conv.weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)
        self.packed: Tensor | None = None

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """The convolution and what follows it, channels last."""
        ops = torch.ops.mkldnn._convolution_pointwise
        x = x.to(self.dtype, memory_format=torch.channels_last)
        if self.packed is None:  # streams may do so at once, and then agree
            shape = [_USUAL_BATCH, *x.shape[1:]]
            self.packed = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self.geometry, shape)
        made: Tensor
        if other is None:
            made = ops(x, self.packed, self.bias, *self.geometry, self.after, [], "")
        else:  # H(x) = F(x) + x in one operation
            made = ops.binary(x, other, self.packed, self.bias, *self.geometry, "add", 1.0, self.after, [], "")
        return made


class SlicedMaxPool(nn.Module):
    """A max pool that takes the larger of slices: PyTorch's own keeps track of places, which only training needs.

    Of squares of 2 at stride 2, and of 3 at stride 2 and padding 1, both of an even height and width: the usual ones.
    Any other is computed by `pool`.
    """

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.pool = pool
        kind = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
        self.overlaps = kind == (3, 2, 1, 1)
        self.usual = self.overlaps or kind == (2, 2, 0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, h, w]."""
        if not self.usual or x.shape[2] % 2 or x.shape[3] % 2:
            pooled: Tensor = self.pool(x)
            return pooled
        return self._along(self._along(x, 2), 3)

    def _along(self, x: Tensor, dim: int) -> Tensor:
        """The largest of each two places along `dim`, and, where squares overlap, of the one before."""
        odd = _every_second(x, dim, 1)
        largest = torch.maximum(_every_second(x, dim, 0), odd)
        if self.overlaps:
            later = largest.narrow(dim, 1, largest.shape[dim] - 1)
            torch.maximum(later, odd.narrow(dim, 0, later.shape[dim]), out=later)
        return largest


def _every_second(x: Tensor, dim: int, start: int) -> Tensor:
    return x[:, :, start::2] if dim == 2 else x[:, :, :, start::2]


class _Tracer(fx.Tracer):
    """Goes down to the modules that hold no others."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002 - fx calls it so
        return next(m.children(), None) is None


def _module(node: fx.Node) -> Any:
    """The module that `node` calls, or None."""
    if node.op != "call_module":
        return None
    owner = node.graph.owning_module
    assert owner is not None, "a graph that belongs to a network"
    return owner.get_submodule(str(node.target))


def _replace(node: fx.Node, by: Any) -> None:
    node.replace_all_uses_with(by)
    node.graph.erase_node(node)


def _put(network: fx.GraphModule, old: fx.Node, at: fx.Node, module: nn.Module, args: tuple[Any, ...]) -> None:
    """Call `module` in the place of `at`; it is named after `old`."""
    name = f"{str(old.target).replace('.', '_')}_made"
    network.add_submodule(name, module)
    with network.graph.inserting_before(at):
        new = network.graph.call_module(name, args)
    _replace(at, new)


def _input(node: fx.Node) -> fx.Node:
    """What a module that reads one tensor reads."""
    source = node.args[0]
    assert isinstance(source, fx.Node), "not a constant"
    return source


def _fold_norm(network: fx.GraphModule, node: fx.Node) -> None:
    """Give the norm at `node` to the convolution before it, where there is one that nothing else reads.

    Behind a max pool only a norm that scales no channel by less than zero can be: those keep the order of values.
    """
    norm, source = _module(node), _input(node)
    if isinstance(_module(source), nn.MaxPool2d) and bool((norm.weight >= 0).all()):
        source = _input(source)
    conv = _module(source)
    if isinstance(conv, nn.Conv2d) and len(source.users) == 1:
        _put(network, source, source, fuse_conv_bn_eval(conv, norm), source.args)
        _replace(node, node.args[0])


def _before_pool(relu: fx.Node) -> fx.Node:
    """The ReLU at `relu`, moved before the max pool that it follows: the order of values is the same."""
    pool = _input(relu)
    if not isinstance(_module(pool), nn.MaxPool2d) or len(pool.users) > 1:
        return relu
    with relu.graph.inserting_before(pool):
        moved = relu.graph.call_module(str(relu.target), pool.args)
    pool.args = (moved,)
    _replace(relu, pool)
    return moved


def _fuse_relu(network: fx.GraphModule, relu: fx.Node, dtype: torch.dtype) -> None:
    """Put one operation in the place of a convolution, perhaps a sum with something earlier, and the ReLU."""
    source = _input(relu)
    if len(source.users) > 1:
        return
    if isinstance(_module(source), nn.Conv2d):
        _put(network, source, relu, FusedConv(_module(source), dtype, "relu"), source.args)
    elif source.op == "call_function" and source.target in _SUMS:
        branch, other = _input(source), source.args[1]
        if isinstance(_module(branch), nn.Conv2d) and len(branch.users) == 1:
            _put(network, branch, relu, FusedConv(_module(branch), dtype, "relu"), (_input(branch), other))


def _end_in_float32(graph: fx.Graph) -> None:
    convolutions = [node for node in graph.nodes if isinstance(_module(node), FusedConv)]
    if not convolutions:
        return
    with graph.inserting_after(convolutions[-1]):
        widened = graph.call_method("float", (convolutions[-1],))
    convolutions[-1].replace_all_uses_with(widened, lambda user: user is not widened)
