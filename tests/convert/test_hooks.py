"""Two hooks a module and nothing else: classes, copies, tracers, threads and interrupts notice nothing."""

import copy
import inspect
import io
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils import weight_norm as old_weight_norm
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint

import dualprop as dp
from tests.oracles.finite_difference import FUNCTIONS, difference
from tests.slow import but_slow

BETA = 5.0


class Model(nn.Module):
    """A module, a function and a method, in a block of their own."""

    def __init__(self, width=9):
        super().__init__()
        self.first, self.act, self.last = nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 3)
        self.checked = self.breaks = False

    def middle(self, x):
        return F.relu(self.act(x)).sigmoid()

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        """From samples (B, 6) to logits (B, 3)."""
        x = self.first(x)
        x = checkpoint(self.middle, x, use_reentrant=False) if self.checked else self.middle(x)
        if self.breaks:
            torch._dynamo.graph_break()
        return self.last(x) * scale


def model(**settings):
    torch.manual_seed(0)
    return dp.convert(Model().double(), beta=BETA, **settings)


def batch(n=5):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 6, dtype=torch.float64, generator=generator), torch.arange(n) % 3


def gradients(module, n=5):
    x, y = batch(n)
    return torch.autograd.grad(F.cross_entropy(module(x), y), list(module.parameters()))


def expected(module, n=5, f=difference):
    """The definition, written out."""
    x, y = batch(n)
    x = F.linear(x, module.first.weight, module.first.bias)
    for name in ("tanh", "relu", "sigmoid"):
        x = f(x, FUNCTIONS[name], BETA * n)
    return torch.autograd.grad(
        F.cross_entropy(F.linear(x, module.last.weight, module.last.bias), y), list(module.parameters())
    )


def ordinary(module, n=5):
    return expected(module, n, lambda a, f, s: f(a))


def same(ours, theirs, rtol=1e-9):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=1e-12)


def differ(ours, theirs):
    return not any(torch.allclose(a, b, rtol=1e-3) for a, b in zip(ours, theirs, strict=True))


def test_the_gradient_is_that_of_the_definition():
    module = model()
    same(gradients(module), expected(module))
    assert differ(gradients(module)[:2], ordinary(module)[:2])


def test_classes_signatures_and_attributes_stay():
    plain, module = Model(), dp.convert(Model())
    assert type(module) is Model
    assert type(module.act) is nn.Tanh
    assert inspect.signature(module.forward) == inspect.signature(plain.forward)
    assert module.forward.__doc__ == "From samples (B, 6) to logits (B, 3)."
    assert vars(module).keys() == vars(plain).keys()
    assert module.state_dict().keys() == plain.state_dict().keys()
    assert [name for name, _ in module.named_buffers()] == []


class Registered(nn.Module):
    """A class that keeps a list of its subclasses, asks them for a keyword, and pickles its own way."""

    kinds: list[type] = []  # noqa: RUF012

    def __init_subclass__(cls, *, key, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.kinds.append(cls)


class Own(Registered, key="own"):
    def __init__(self):
        super().__init__()
        self.body, self.cache = nn.Sequential(nn.Linear(6, 3), nn.Tanh()), [1, 2]

    def __getstate__(self):
        return {**self.__dict__, "cache": None}

    def forward(self, x):
        return self.body(x)


def test_registries_of_subclasses_and_own_ways_to_pickle_are_respected():
    module = dp.convert(Own().double(), beta=BETA)
    assert Registered.kinds == [Own]
    for other in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert other.cache is None
        same(gradients(other), gradients(module))


@pytest.mark.parametrize("normed", [parametrizations.weight_norm, old_weight_norm, parametrizations.spectral_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
def test_a_normed_layers_weight_is_there_outside_of_forward(normed):
    def made():
        torch.manual_seed(0)
        return nn.Sequential(normed(nn.Linear(6, 4)), nn.Tanh(), nn.Linear(4, 3)).double()

    plain, net = made(), dp.convert(made(), beta=BETA)
    assert net[0].weight.shape == plain[0].weight.shape
    x, y = batch()
    ours = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
    z = plain[2](difference(plain[0](x), FUNCTIONS["tanh"], BETA * 5))
    same(ours, torch.autograd.grad(F.cross_entropy(z, y), list(plain.parameters())))


def test_unconvert_gives_the_module_back():
    for settings in ({}, {"kolen_pollack": True}):
        plain = Model().double()
        hooks = {name: len(value) for name, value in vars(plain).items() if "hooks" in name}
        module = dp.convert(copy.deepcopy(plain), beta=BETA, **settings)
        assert len(module._forward_hooks) == 1
        for back in (dp.unconvert(copy.deepcopy(module)), dp.unconvert(module)):
            for m in back.modules():
                assert {name: len(value) for name, value in vars(m).items() if "hooks" in name} == hooks
                assert (
                    vars(m).keys()
                    == vars(plain.get_submodule(next(n for n, o in back.named_modules() if o is m))).keys()
                )
            assert back.state_dict().keys() == plain.state_dict().keys()
            same(gradients(back), ordinary(back))
            with pytest.raises(dp.DualpropError, match="is not converted"):
                dp.conversion(back)
        same(gradients(dp.convert(module, beta=BETA)), expected(module))  # and it can be converted again


def test_unconvert_wants_the_converted_module():
    with pytest.raises(dp.DualpropError, match="Linear is not converted"):
        dp.unconvert(nn.Linear(2, 2))
    with pytest.raises(dp.DualpropError, match="this Tanh is only a part of a converted Model"):
        dp.unconvert(model().act)


def saved(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, saved, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("settings", [{}, {"kolen_pollack": True}, {"exclude": ["act"]}])
def test_copies_do_the_same_and_know_their_own_conversion(copied, settings):
    module = model(**settings)
    other = copied(module)
    same(gradients(other), gradients(module))
    assert dp.conversion(other) is not dp.conversion(module)
    assert dp.conversion(other.act) is dp.conversion(other)
    handle = other.act.register_forward_hook(lambda *_: None)  # its number is not one of ours
    assert len(other.act._forward_hooks) == 2
    handle.remove()
    dp.unconvert(other)
    assert differ(gradients(other)[:2], gradients(module)[:2]) or "exclude" in settings


def test_a_traced_graph_is_converted_copied_and_compiled_again():
    traced = torch.fx.symbolic_trace(Model().double())
    plain = copy.deepcopy(traced)
    module = dp.convert(traced, beta=BETA)
    for other in (module, copy.deepcopy(module), copy.deepcopy(copy.deepcopy(module))):
        same(gradients(other), expected(other))
        other.recompile()
        same(gradients(other), expected(other))
    with pytest.raises(dp.DualpropError, match=r"^module: \w+: pickled, a GraphModule loses its hooks$"):
        pickle.dumps(module)
    dp.unconvert(module)
    assert module.meta == plain.meta
    same(gradients(pickle.loads(pickle.dumps(module))), ordinary(module))


def test_tracers_see_the_ordinary_module():
    module, (x, _) = model(), batch()
    with torch.no_grad():
        output = module(x)
    assert torch.equal(torch.fx.symbolic_trace(module)(x), output)
    exported = torch.export.export(copy.deepcopy(module), (x,)).module()
    assert torch.equal(exported(x), output)
    same(
        torch.autograd.grad(F.cross_entropy(exported(x), batch()[1]), list(exported.parameters())),
        ordinary(module),
    )


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_torchscript_sees_the_ordinary_module():
    torch.manual_seed(0)
    module, (x, y) = (
        dp.convert(nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double(), beta=BETA),
        batch(),
    )
    back = dp.unconvert(copy.deepcopy(module))
    plain = torch.autograd.grad(F.cross_entropy(back(x), y), list(back.parameters()))
    for scripted in (torch.jit.trace(copy.deepcopy(module), x), torch.jit.script(back)):
        same(torch.autograd.grad(F.cross_entropy(scripted(x), y), list(scripted.parameters())), plain)


def test_threads_do_not_meet():
    module = model()
    wanted = {n: gradients(module, n) for n in (3, 5, 8)}
    wrong = []

    def train(n):
        for _ in range(60):
            wrong.extend(
                n for a, b in zip(gradients(module, n), wanted[n], strict=True) if not torch.allclose(a, b)
            )

    def validate():
        for _ in range(200):
            with torch.no_grad():
                module(batch(7)[0])

    threads = [threading.Thread(target=train, args=(n,)) for n in wanted] + [threading.Thread(target=validate)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_replicas_of_data_parallel():
    """As `DataParallel` makes them: shallow copies, whose tensors and submodules are set anew, one to a thread."""
    module = model(kolen_pollack=True)
    wanted = gradients(module)
    replicas = []
    for _ in range(2):
        made = {m: m._replicate_for_data_parallel() for m in module.modules()}
        for m, replica in made.items():
            for name, child in m._modules.items():
                replica._modules[name] = made[child]
            for name, p in m._parameters.items():
                setattr(replica, name, p * 1.0)
        replicas.append(made[module])
    results = {}

    def run(k):
        x, y = batch()
        results[k] = torch.autograd.grad(F.cross_entropy(replicas[k](x), y), list(module.parameters()))

    threads = [threading.Thread(target=run, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(2):
        same(results[k], wanted)


class Fails(Model):
    what: type[BaseException] | None = None

    def middle(self, x):
        x = super().middle(x)
        if self.what is not None:
            raise self.what
        return x


@pytest.mark.parametrize("what", [ValueError, KeyboardInterrupt])
def test_a_call_that_fails_or_is_interrupted_leaves_nothing_behind(what):
    module = dp.convert(Fails().double(), beta=BETA)
    module.what = what
    with pytest.raises(what):
        module(batch()[0])
    a = torch.tensor([0.5], requires_grad=True)
    assert type(torch.tanh(a).grad_fn).__name__ == "TanhBackward0"
    module.what = None
    same(gradients(module), expected(module))
    assert _get_current_function_mode_stack() == []


def test_a_module_shared_with_an_excluded_block_is_ordinary_there():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            act = nn.Tanh()
            self.a = nn.Sequential(nn.Linear(6, 5), act)
            self.b = nn.Sequential(nn.Linear(5, 5), act)
            self.last = nn.Linear(5, 3)

        def forward(self, x):
            return self.last(self.b(self.a(x)))

    x, y = batch()
    for excluded in ("a", "b"):
        module = dp.convert(Two().double(), beta=BETA, exclude=excluded)
        ours = torch.autograd.grad(F.cross_entropy(module(x), y), list(module.parameters()))
        z = x
        for name in ("a", "b"):
            a = F.linear(z, module.get_submodule(name)[0].weight, module.get_submodule(name)[0].bias)
            z = torch.tanh(a) if name == excluded else difference(a, FUNCTIONS["tanh"], BETA * 5)
        z = F.linear(z, module.last.weight, module.last.bias)
        same(ours, torch.autograd.grad(F.cross_entropy(z, y), list(module.parameters())))


@pytest.mark.parametrize("exclude", [(), "act"])
def test_a_checkpointed_function_saves_the_same_again(exclude):
    module = model(exclude=exclude)
    wanted = gradients(module)
    module.checked = True
    same(gradients(module), wanted)
    same(gradients(module, 8), gradients(model(exclude=exclude), 8))
    assert _get_current_function_mode_stack() == []


class Outer(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


@pytest.mark.parametrize("backend", but_slow(["eager", "aot_eager", "inductor"], "aot_eager", "inductor"))
@pytest.mark.parametrize(
    ("inside", "breaks"),
    [(False, False), (True, True), *(pytest.param(a, not a, marks=pytest.mark.slow) for a in (False, True))],
)
def test_compiled(backend, inside, breaks):
    module = model()
    module.breaks = breaks
    compiled = torch.compile(Outer(module) if inside else module, backend=backend, fullgraph=not breaks)
    for n in (5, 8, 8, 6):
        same(gradients(compiled, n), expected(module, n), rtol=1e-7)
    assert dp.conversion(module).converted == {"": "ReLU, Sigmoid", "act": "Tanh"}
    assert _get_current_function_mode_stack() == []


def _compile(outer, name, backend, *, wrapped):
    if wrapped:
        setattr(outer, name, torch.compile(getattr(outer, name), backend=backend))
    else:
        getattr(outer, name).compile(backend=backend)


@pytest.mark.parametrize(
    ("part", "before", "wrapped", "backend"),
    [
        ("act", False, False, "eager"),
        pytest.param("act", True, True, "eager", marks=pytest.mark.slow),
        pytest.param("inner", False, True, "aot_eager", marks=pytest.mark.slow),
        pytest.param("inner", True, False, "aot_eager", marks=pytest.mark.slow),
    ],
)
def test_parts_that_are_compiled_by_themselves(part, before, wrapped, backend):
    """Also in the first call, which is looked at closely, and for its size of batch ever after."""
    torch.manual_seed(0)
    plain = Model().double()
    outer = Outer(copy.deepcopy(plain))
    owner = outer if part == "inner" else outer.inner
    if before:
        _compile(owner, part, backend, wrapped=wrapped)
    dp.convert(outer, beta=BETA)
    if not before:
        _compile(owner, part, backend, wrapped=wrapped)
    for n in (5, 5, 8):
        same(gradients(outer, n), expected(plain, n))


@pytest.mark.parametrize("wrap", [lambda m: torch.compile(m, backend="eager"), Outer], ids=["compile", "module"])
def test_a_wrapper_is_asked_as_what_it_holds(wrap):
    x, y = batch()
    module = model(kolen_pollack=True)
    wrapped = wrap(module)
    assert dp.conversion(wrapped) is dp.conversion(module)
    ours, theirs = (dp.alignment(m, F.cross_entropy, x, y) for m in (wrapped, module))
    assert ours.total == pytest.approx(theirs.total)
    assert [name.rpartition(".")[2] for name in ours.cosine] == list(theirs.cosine)
    assert dp.unconvert(wrapped) is wrapped
    assert not hasattr(module.first, "feedback")
    with pytest.raises(dp.DualpropError, match=r"^module: this (OptimizedModule|Outer) is not converted$"):
        dp.conversion(wrapped)


def test_what_was_compiled_is_converted_inside():
    compiled = torch.compile(Model().double(), backend="eager")
    assert dp.convert(compiled, beta=BETA, exclude="act") is compiled
    assert dp.conversion(compiled).left_alone == {"act": "excluded"}
    assert dp.unconvert(compiled) is compiled
    dp.convert(compiled, beta=BETA)
    same(gradients(compiled), expected(compiled._orig_mod))
    with pytest.raises(dp.DualpropError, match=r"^module: Model is converted already$"):
        dp.convert(compiled)
    with pytest.raises(dp.DualpropError, match=r"^module: ModuleList holds several converted ones: 0, 1$"):
        dp.conversion(nn.ModuleList([model(), model()]))


@pytest.mark.slow
def test_batches_of_every_size_share_one_compiled_graph():
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(model(), backend=counter, fullgraph=True)
    for n in (5, 6, 7, 8, 9):
        gradients(compiled, n)
    assert counter.frame_count == 2  # for one size, then for all


def test_what_was_compiled_before_notices():
    plain = Outer(Model().double())
    compiled = torch.compile(plain, backend="eager")
    same(gradients(compiled), ordinary(plain.inner))
    dp.convert(plain.inner, beta=BETA)
    same(gradients(compiled), expected(plain.inner))
    dp.unconvert(plain.inner)
    same(gradients(compiled), ordinary(plain.inner))


def test_transforms_of_functions():
    """Gradients of every sample, Jacobians and batched cotangents: each a finite difference of its own."""
    module, (x, y) = model(), batch()
    weights = dict(module.named_parameters())

    def loss(weights, x, y):
        return F.cross_entropy(torch.func.functional_call(module, weights, (x[None],)), y[None])

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, x, y)
    for k in range(len(x)):
        one = torch.autograd.grad(F.cross_entropy(module(x[k : k + 1]), y[k : k + 1]), list(weights.values()))
        same([g[k] for g in each.values()], one)
    x.requires_grad_()
    output = module(x)
    units = torch.eye(output.numel(), dtype=x.dtype).view(-1, *output.shape)
    rows = [torch.autograd.grad(output, x, unit, retain_graph=True)[0] for unit in units]
    (batched,) = torch.autograd.grad(output, x, units, is_grads_batched=True, retain_graph=True)
    jacobian = torch.func.jacrev(module)(x.detach())
    torch.testing.assert_close(batched, torch.stack(rows), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(jacobian.flatten(0, 1), torch.stack(rows), rtol=1e-9, atol=1e-12)


def test_empty_sparse_and_nested_inputs():
    module = model()
    with torch.no_grad():
        assert module(batch()[0][:0]).shape == (0, 3)
    with pytest.raises(dp.DualpropError, match="batch of 0"):
        module(batch()[0][:0])
    x, y = batch()
    ours = torch.autograd.grad(F.cross_entropy(module(x.to_sparse()), y), list(module.parameters()))
    same(ours, expected(module))
    parts = torch.nested.nested_tensor([x[:2], x[2:]])
    with pytest.raises(dp.DualpropError, match="must have layout=torch"):
        module(parts)
    ragged = torch.nested.nested_tensor([x[:2], x[2:]], layout=torch.jagged)
    plain = dp.convert(nn.Sequential(nn.Linear(6, 4), nn.Tanh()).double())
    plain(ragged).values().square().sum().backward()  # looked at closely, as the first pass is
    assert all(p.grad is not None for p in plain.parameters())
    ours = torch.autograd.grad(module(ragged).values().square().sum() / 2, list(module.parameters()))
    twice = F.linear(x, module.first.weight, module.first.bias)
    for name in ("tanh", "relu", "sigmoid"):
        twice = difference(twice, FUNCTIONS[name], BETA * 2)
    twice = F.linear(twice, module.last.weight, module.last.bias).square().sum() / 2
    same(ours, torch.autograd.grad(twice, list(module.parameters())))
