"""ATen's own kernels on `meta` in the place of torch's in Python: traces take half as long."""

import torch
import torch._meta_registrations as registered
from torch._decomp import global_decomposition_table

TABLES = ("meta", "post_autograd", "pre_autograd")  # of torch's kernels in Python, those that come first count


def use_native_kernels() -> None:
    """For the rest of this process, kernels in Python run only for operators of which ATen has none.

    Shapes, strides and storages are the same: programs learned so are checked against traces without. Where torch has no such library of
    kernels any more, nothing changes.
    """
    library = getattr(registered, "_meta_lib_dont_use_me_use_register_meta", None)
    if library is None:
        return
    library._destroy()
    rest = torch.library.Library("aten", "IMPL", "Meta")
    registered._meta_lib_dont_use_me_use_register_meta = rest  # lives as long as the one before
    kernels = {}
    for table in reversed(TABLES):
        kernels |= global_decomposition_table[table]
    for operator, kernel in kernels.items():
        if not isinstance(operator, torch._ops.OpOverload) or operator.namespace != "aten" or operator.is_view:
            continue
        if not any(torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), key) for key in ("CompositeImplicitAutograd", "Meta")):
            rest.impl(operator, kernel)
