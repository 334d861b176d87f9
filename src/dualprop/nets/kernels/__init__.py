"""Products and element-wise work by the fastest way at hand."""
