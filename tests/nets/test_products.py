"""The products of dense layers are those of the definition, in the type of the states."""

import pytest
import torch

from dualprop.nets.kernels import products


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 7), (33, 17, 64)])
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_a_drive_is_a_sum_whatever_the_type_of_the_bias(shape, dtype, rounding):
    batch, m, n = shape
    z, weight, bias = torch.randn(batch, n).to(dtype), torch.randn(m, n).to(dtype), torch.randn(m)
    sums = (z.double()[:, None] * weight.double()).sum(2)
    with torch.no_grad():
        for b in (None, bias, bias.to(dtype)):
            drive = products.forward(z, weight, b)
            assert drive.dtype == dtype
            expected = sums if b is None else sums + b.double()
            torch.testing.assert_close(drive.double(), expected, rtol=rounding, atol=rounding * n**0.5)
