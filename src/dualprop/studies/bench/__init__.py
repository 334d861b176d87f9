"""How fast, how much memory: every rule beside back-propagation in plain PyTorch, and what the machine can do.

plan.py        what is to be measured, checked
workload.py    one net, one batch, one precision: what the rows of a table share
subjects.py    what is timed; `subjects()`
arithmetic.py  the multiplications and additions of a step
timing.py      interleaved pairs, quartiles
memory.py      the peak, from the allocator's records
ceilings.py    what the machine itself can do
run.py         the measurement
report.py      table and JSON; chart.py: the picture
"""
