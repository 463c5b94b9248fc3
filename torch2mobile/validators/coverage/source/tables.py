"""What PyTorch's functions and methods give, as far as the rules ask."""

from __future__ import annotations

# Methods (and attributes) of tensors that do not depend on what is in them.
SIZES = {"shape", "size", "numel", "nelement", "stride", "storage_offset", "__len__"}
FACTS = {
    *("dim", "ndim", "ndimension", "dtype", "device", "layout", "requires_grad", "grad", "grad_fn"),
    *("element_size", "itemsize", "nbytes", "names", "data_ptr"),
}
# Functions of torch that give no tensor, whatever they are given.
PLAIN_FUNCTIONS = {
    *("finfo", "iinfo", "device", "Size", "result_type", "promote_types", "can_cast", "numel"),
    *("_assert", "_check", "_check_is_size", "_check_value", "has_torch_function"),
}
# Python values out of tensors: a truth, a number, a list.
TRUTHS = {"equal", "allclose", "is_nonzero", "is_same_size"}
TO_PYTHON = {"item", "tolist", "__bool__", "__int__", "__float__", "__index__"}
TO_NUMPY = {"numpy", "__array__"}
UNSIZED = {
    *("nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount"),
    *("nonzero_tuple", "combinations"),
}
# Give another tensor on the same memory, always.
VIEWS = {
    *("view", "transpose", "permute", "squeeze", "unsqueeze", "narrow", "select", "expand"),
    *("detach", "t", "T", "mT", "H", "mH", "swapaxes", "swapdims", "movedim", "moveaxis", "data"),
    *("diagonal", "unfold", "view_as", "expand_as", "real", "imag", "chunk", "split"),
    *("tensor_split", "unbind", "unflatten", "requires_grad_"),
}
SEQUENCES = {
    *("chunk", "split", "tensor_split", "unbind", "meshgrid", "broadcast_tensors", "hsplit"),
    *("vsplit", "dsplit", "split_with_sizes", "align_tensors"),
}
BOOLEAN = {
    *("eq", "ne", "lt", "le", "gt", "ge", "greater", "less", "isnan", "isinf", "isfinite"),
    *("logical_and", "logical_or", "logical_not", "logical_xor", "bool", "isclose", "isin"),
    *("isposinf", "isneginf", "signbit", "not_equal", "less_equal", "greater_equal", "isreal"),
}
RANDOM = {
    *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like"),
    *("bernoulli", "multinomial", "normal", "poisson", "normal_", "uniform_", "bernoulli_"),
    *("exponential_", "random_", "gumbel_softmax", "cauchy_", "geometric_", "log_normal_"),
}
DROPOUTS = {
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout"),
    *("feature_alpha_dropout", "feature_dropout"),
}
# Where ``training=`` stands among the positional arguments of the dropouts.
TRAINING_POSITION = 2
COMPLEX = {"complex", "view_as_complex", "polar", "stft", "istft"}
SPARSE = {
    *("to_sparse", "to_sparse_csr", "to_sparse_csc", "to_sparse_bsr", "to_sparse_bsc"),
    *("sparse_coo_tensor", "sparse_csr_tensor", "sparse_csc_tensor", "sparse_bsr_tensor"),
    *("sparse_compressed_tensor", "to_sparse_coo"),
}
GRAD_MODES = {"no_grad", "enable_grad", "set_grad_enabled", "inference_mode"}
EXPORTING = {
    "torch.compiler.is_exporting",
    "torch.compiler.is_compiling",
    "torch.onnx.is_in_onnx_export",
    "torch._dynamo.is_compiling",
}
# Methods of lists, dicts and sets that change them.
CHANGING = {
    *("add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem"),
    *("popleft", "remove", "setdefault", "update"),
}
# What is read from outside is fixed at the moment of the export.
OUTSIDE = ("time", "datetime", "random", "os", "uuid", "secrets", "socket", "numpy.random")
OUTSIDE_NOT = ("os.path",)
PRINTING = {"print", "open", "input", "breakpoint"}
PRINTING_MODULES = ("logging", "sys.stdout", "sys.stderr")
# Values with their indices, along a dimension; and what always gives two tensors.
REDUCTIONS = {"max", "min", "median", "mode", "nanmedian"}
PAIRS = {"topk", "sort", "kthvalue", "cummax", "cummin", "std_mean", "var_mean", "frexp", "aminmax"}
REAL_FFT = {"fftfreq", "rfftfreq", "fftshift", "ifftshift"}
# What a name says by itself, as a function or as a method: the rule and its message.
SAID: tuple[tuple[set[str], str, str], ...] = (
    (TO_PYTHON, "T2M104", ".{}() makes Python values of a tensor's data"),
    (TO_NUMPY, "T2M105", "the data leaves torch for numpy"),
    (UNSIZED, "T2M106", "the shape that {} gives depends on data"),
    (COMPLEX | {"cfloat", "cdouble"}, "T2M111", "{} works on complex numbers"),
    (SPARSE, "T2M112", "{} gives a sparse tensor"),
    (RANDOM, "T2M131", "{} gives other numbers at every call"),
    (GRAD_MODES, "T2M141", "{} changes nothing in a file"),
    ({"double"}, "T2M160", "{}() converts to float64"),
    ({"bfloat16"}, "T2M161", "{}() converts to bfloat16"),
)


def is_fact(name: str) -> bool:
    """Whether a method or attribute of a tensor, or a function of torch, tells of no data."""
    asks = name.lstrip("_").startswith(("is_", "are_", "has_", "get_"))
    return name in FACTS or (asks and name not in TRUTHS | {"is_nonzero"})
