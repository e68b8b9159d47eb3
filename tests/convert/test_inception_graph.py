"""The frozen graph of Inception, written by another implementation of protocol buffers."""

import sys

import numpy as np
import pytest

from score_sde.convert import CheckpointError, graph_def, inception_graph
from score_sde.nets import check_spec
from score_sde.nets.inception import Inception, from_torch_names


@pytest.fixture(scope="module")
def protocol():
    """TensorFlow's messages as tensorboardX carries them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)  # which tensorboardX imports where it can
        return pytest.importorskip("tensorboardX.proto.graph_pb2")


def graph(protocol, arrays, *, packed=()):
    """Bytes of a graph with these constants, a node that is none, and a constant of integers."""
    message = protocol.GraphDef()
    message.node.add(name="input", op="Placeholder").attr["dtype"].type = 1
    for name, array in arrays.items():
        node = message.node.add(name=name, op="Const", device="/cpu:0")
        node.attr["dtype"].type = 1
        tensor = node.attr["value"].tensor
        tensor.dtype = 1
        for size in np.shape(array):
            tensor.tensor_shape.dim.add(size=size)
        if name in packed:
            tensor.float_val.extend(np.ravel(array).tolist())
        else:
            tensor.tensor_content = np.asarray(array, "<f4").tobytes()
    whole = message.node.add(name="shape", op="Const")
    whole.attr["value"].tensor.dtype = 3
    whole.attr["value"].tensor.int_val.extend([1, -1])
    message.versions.producer = 7
    return message.SerializeToString()


def test_constants_are_read_as_they_were_written(protocol, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "a/b": rng.normal(size=(3, 1, 300, 2)).astype(np.float32),
        "list": rng.normal(size=(5,)).astype(np.float32),
        "scalar": np.float32(2.5),
    }
    path = tmp_path / "graph.pb"
    path.write_bytes(graph(protocol, arrays, packed=("list",)))
    found = graph_def.read(path)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    message = protocol.GraphDef()
    tensor = message.node.add(name="same", op="Const").attr["value"].tensor
    tensor.dtype = 1
    tensor.tensor_shape.dim.add(size=4)
    tensor.float_val.append(0.25)  # one number stands for all
    path.write_bytes(message.SerializeToString())
    np.testing.assert_array_equal(graph_def.read(path)["same"], np.full(4, 0.25))


def test_a_damaged_graph_is_told(protocol, tmp_path):
    path = tmp_path / "graph.pb"
    whole = graph(protocol, {"a": np.ones((4, 4), np.float32)})
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        try:
            found = graph_def.read(path)
        except CheckpointError:
            continue
        assert list(found) == ["a"]  # it ended between two nodes
    path.write_bytes(whole.replace(b"\x12\x02\x08\x04", b"\x12\x02\x08\x05"))
    with pytest.raises(CheckpointError, match=r"a of shape \(5, 5\) has 64 bytes, not 100"):
        graph_def.read(path)
    for nonsense in (b"", b"PK\x03\x04 a zip", b"\xff" * 40):
        path.write_bytes(nonsense)
        with pytest.raises(CheckpointError):
            graph_def.read(path)


def test_every_parameter_of_inception_is_in_the_graph(protocol, tmp_path):
    names = inception_graph.names()
    # Pairs from the documentation of others who read the graph, one for each kind of block.
    assert names["conv_4/conv2d_params"] == "Conv2d_4a_3x3.conv.weight"
    assert names["mixed/tower/conv_1/batchnorm/beta"] == "Mixed_5b.branch5x5_2.bn.bias"
    assert names["mixed_3/conv/batchnorm/gamma"] == "Mixed_6a.branch3x3.bn.weight"
    assert names["mixed_6/conv/conv2d_params"] == "Mixed_6d.branch1x1.conv.weight"
    assert names["mixed_7/tower_1/conv_3/conv2d_params"] == "Mixed_6e.branch7x7dbl_4.conv.weight"
    assert names["mixed_8/tower_1/conv_3/conv2d_params"] == "Mixed_7a.branch7x7x3_4.conv.weight"
    mean = names["mixed_10/tower_1/mixed/conv_1/batchnorm/moving_mean"]
    assert mean == "Mixed_7c.branch3x3dbl_3b.bn.running_mean"
    assert names["mixed_9/tower_2/conv/batchnorm/moving_variance"] == "Mixed_7b.branch_pool.bn.running_var"

    shapes = Inception().shapes()

    def shape(ours):
        if ours.startswith("fc."):
            return shapes["fc_kernel" if ours == "fc.weight" else "fc_bias"].shape
        *path, kind, leaf = ours.split(".")
        place = shapes
        for part in path:
            place = place[part]
        leaves = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "variance"}
        return place["kernel" if kind == "conv" else leaves[leaf]].shape

    # The layout of a convolution in TensorFlow is ours; zeros that take no memory.
    constants = {name: np.broadcast_to(np.float32(0), shape(ours)) for name, ours in names.items()}
    params = from_torch_names(inception_graph.torch_tensors(constants))
    check_spec(params, shapes)
    kernel = np.random.default_rng(0).normal(size=shape(names["mixed_6/conv/conv2d_params"]))
    constants["mixed_6/conv/conv2d_params"] = kernel.astype(np.float32)
    params = from_torch_names(inception_graph.torch_tensors(constants))
    np.testing.assert_array_equal(params["Mixed_6d"]["branch1x1"]["kernel"], kernel.astype(np.float32))
    (tmp_path / "other.pb").write_bytes(graph(protocol, {"conv/conv2d_params": np.ones((2, 2, 2, 2))}))
    with pytest.raises(CheckpointError, match=r"lacks 'conv/batchnorm/gamma' and 470 more"):
        inception_graph.read(tmp_path / "other.pb")
