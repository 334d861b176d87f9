"""Does the suite turn red? One line of the library is spoilt at a time, and the tests that hold it must fail.

    python -m tests.sabotage                # all of them, some minutes
    python -m tests.sabotage pool resume    # those with one of these words in their name

A sabotage is what a slip of the pen might do: nothing crashes, numbers are a little wrong. It is made in a copy of
`src`. When its line has been rewritten, `test_sabotage.py` says so: find what holds the same promise now.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "dualprop"


HANGS = 300
"""Seconds: tests that wait for what never comes are to give up by themselves."""


class Sabotage(NamedTuple):
    """One line spoilt.

    Attributes:
        file: below `src/dualprop`.
        old: text that it holds once.
        new: what takes its place.
        tests: below `tests`, with options of pytest; they must fail.
    """

    file: str
    old: str
    new: str
    tests: str

    def spoil(self, sources: Path) -> None:
        """Put the new text in place of the old one.

        Raises:
            ValueError: if the file does not hold it exactly once.
        """
        path = sources / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file} holds {self.old!r} {text.count(self.old)} times, not once")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")

    def turns_red(self) -> bool:
        """Whether the tests fail.

        Raises:
            RuntimeError: if they could not even be run.
            subprocess.TimeoutExpired: if they hang.
        """
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "dualprop"
            shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("__pycache__"))
            self.spoil(copy)
            command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
            tests, *options = self.tests.split()
            own = {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
            answer = subprocess.run(
                [*command, f"tests/{tests}", *options],
                cwd=ROOT,
                env=os.environ | own,
                capture_output=True,
                text=True,
                timeout=HANGS,
            )
        if answer.returncode not in (0, 1):
            raise RuntimeError(f"{self.tests}: pytest ended with {answer.returncode}\n{answer.stdout[-2000:]}")
        return answer.returncode == 1


SABOTAGES = {
    "arena: a block is lent twice": Sabotage(
        "nets/kernels/arena.py",
        "return idle.pop()[1]",
        "return idle[-1][1]",
        "nets/test_arena.py",
    ),
    "arena: a block comes back while a view of it lives": Sabotage(
        "nets/kernels/arena.py",
        "weakref.finalize(seen, _give_back,",
        "weakref.finalize(seen[:1], _give_back,",
        "nets/test_arena.py",
    ),
    "arena: idle blocks are never given up": Sabotage(
        "nets/kernels/arena.py",
        "while idle and idle[0][0] < self._number - KEPT:",
        "while idle and idle[0][0] < -KEPT:",
        "nets/test_arena.py",
    ),
    "arena: autocast does not bring a product to its type": Sabotage(
        "nets/kernels/products.py",
        "if plain else None",
        "if delta.dtype is p.dtype else None",
        "nets/test_arena.py",
    ),
    "engine: an old drive is taken for news": Sabotage(
        "engines/dyads/plan.py",
        "self._driven[e] = self._linearisation[e] = self._summed[target] = False",
        "self._linearisation[e] = False",
        "engines/dyads/test_twin.py",
    ),
    "engine: the winners of before get the feedback": Sabotage(
        "engines/dyads/plan.py",
        "if self._sent[e] and not self.linear[e]:",
        "if False:",
        "engines/dyads/test_conv_twin.py",
    ),
    "engine: the ratio of two nudges upside down": Sabotage(
        "engines/dyads/states.py",
        "return self.alpha * ratio, (1 - self.alpha) * ratio",
        "return self.alpha / ratio, (1 - self.alpha) / ratio",
        "engines/dyads/test_twin.py",
    ),
    "engine: the transposed mean forgotten": Sabotage(
        "engines/dyads/states.py",
        "return 1 - self.alpha if self.transpose else self.alpha",
        "return self.alpha",
        "engines/dyads/test_facts.py",
    ),
    "engine: a small batch takes the slots of others": Sabotage(
        "engines/slots.py",
        "return torch.cat([top, base[len(top) :].to(top)]) if len(base) > len(top) else top",
        "return top",
        "rules/test_variants.py",
    ),
    "engine: what is still to be read is freed": Sabotage(
        "engines/dyads/program.py",
        "alive = (alive - writes) | reads",
        "alive = alive - writes",
        "engines/dyads/test_program.py",
    ),
    "engine: a drive that others will read is written over": Sabotage(
        "engines/dyads/program.py",
        "(*self.summed, *(Register(*part) for part in parts))",
        "()",
        "engines/dyads/test_twin.py",
    ),
    "engine: the one part of a sum is written over": Sabotage(
        "engines/dyads/program.py",
        "(*self.summed, *(Register(*part) for part in parts))",
        "self.summed",
        "engines/dyads/test_program.py",
    ),
    "engine: what is bound to weights does not see that they lie elsewhere": Sabotage(
        "nets/synapses/weighted.py",
        "                    p.data_ptr(),\n",
        "",
        "engines/dyads/test_fixed.py -k counts",
    ),
    "engine: what the net said is written over by the next batch": Sabotage(
        "engines/dyads/fixed.py",
        "n.said.clone() if n.said is n.total else n.said",
        "n.said",
        "engines/dyads/test_fixed.py -k caller",
    ),
    "engine: states in memory that stays begin where the last batch ended": Sabotage(
        "engines/dyads/fixed.py",
        "                register.zero_()",
        "                pass",
        "engines/dyads/test_fixed.py -k zero",
    ),
    "damped: the state before is forgotten": Sabotage(
        "engines/dyads/damped.py",
        "nudged.add_(old, alpha=strength)",
        "nudged",
        "engines/dyads/test_damped.py -k loops",
    ),
    "damped: the norm is not squared": Sabotage(
        "engines/dyads/damped.py",
        "spectral_norm(link.synapse, z) ** 2",
        "spectral_norm(link.synapse, z)",
        "engines/dyads/test_damped.py -k loops",
    ),
    "predictive coding: odd layers come first": Sabotage(
        "rules/predictive_coding.py",
        "(*range(2, last + 1, 2), *range(1, last + 1, 2))",
        "(*range(1, last + 1, 2), *range(2, last + 1, 2))",
        "rules/test_predictive_coding.py -k step",
    ),
    "schedules: the way down ends one layer early": Sabotage(
        "engines/dyads/schedules/passes.py",
        "for k in range(wiring.depth, 0, -1):",
        "for k in range(wiring.depth, 1, -1):",
        "engines/dyads/test_twin.py",
    ),
    "settling: rounding at a fixed point passes for growth": Sabotage(
        "engines/dyads/settling.py",
        "last.relative > self._least and",
        "last.relative > self.tolerance and",
        "nets/test_graph_nets.py -k rounding",
    ),
    "schedules: a skip connection takes the place of the long way": Sabotage(
        "engines/dyads/_reach.py",
        "count[k] = 1 + max(above)",
        "count[k] = 1 + min(above)",
        "engines/dyads/test_reach.py -k longest",
    ),
    "graphs: the feedback of every edge weighs the same": Sabotage(
        "engines/dyads/states.py",
        "return self.beta[first - 1] / self.beta[target - 1]",
        "return 1.0",
        "engines/dyads/test_graph_twin.py",
    ),
    "graphs: an output in the middle is nudged on the first way up": Sabotage(
        "engines/dyads/schedules/passes.py",
        "nudged=not (first and k in wiring.outputs)",
        "nudged=True",
        "engines/dyads/test_graph_twin.py -k two-outputs",
    ),
    "graphs: a state is written over by the layer that it skips to": Sabotage(
        "engines/dyads/neurons.py",
        "return parts[0].clone() if first.synapse.aliases else parts[0]",
        "return parts[0]",
        "engines/dyads/test_graph_twin.py -k branch",
    ),
    "graphs: a difference that has gone is still sent down": Sabotage(
        "engines/dyads/plan.py",
        "if before or self._different[k]:",
        "if self._different[k]:",
        "engines/dyads/test_plan.py",
    ),
    "graphs: the way down of a skew pair learns as that of a symmetric one": Sabotage(
        "nets/synapses/transposed.py",
        "self.tied.learn_weights(p if self.scale == 1 else p * self.scale, delta)",
        "self.tied.learn_weights(p, delta)",
        "engines/dyads/test_graph_facts.py -k skew",
    ),
    "graphs: states that grow by a factor pass for settling": Sabotage(
        "engines/dyads/settling.py",
        "last.norm > half.norm > early.norm",
        "last.relative > half.relative > early.relative",
        "nets/test_graph.py -k settle",
    ),
    "drawing: edges beside the layers meet": Sabotage(
        "nets/drawing.py",
        "if lane.low <= high and lane.high >= low}",
        "if lane.low < high and lane.high > low}",
        "nets/test_drawing.py",
    ),
    "energies: a tied pair is two terms": Sabotage(
        "engines/hopfield/net.py",
        "        if ties:\n            continue\n",
        "",
        "engines/hopfield/test_graph_facts.py -k tied",
    ),
    "energies: of edges the same way the first counts": Sabotage(
        "engines/hopfield/net.py",
        "        if ties:\n",
        "        if ties or (source, target) in wiring.edges[:e]:\n",
        "engines/hopfield/test_graph_twin.py -k double",
    ),
    "energies: a skip's feedback has the gain of one level": Sabotage(
        "engines/hopfield/net.py",
        "self.gain ** (self.ranks[source] - self.ranks[target])",
        "self.gain",
        "engines/hopfield/test_graph_twin.py -k chl",
    ),
    "energies: neighbours move at once": Sabotage(
        "engines/hopfield/relaxation.py",
        "if not near.intersection(group)), None)",
        "if group[0] % 2 == k % 2), None)",
        "engines/hopfield/test_graph_facts.py -k energy",
    ),
    "energies: a loop's bias is felt twice": Sabotage(
        "engines/hopfield/contrasts.py",
        "copies.beside(z, torch.zeros_like(z))",
        "copies.beside(z, z)",
        "engines/hopfield/test_graph_twin.py -k tied-skip",
    ),
    "energies: an output that drives others is read out": Sabotage(
        "rules/relaxing.py",
        "if each.link is not None and not out_of[k]]",
        "if each.link is not None]",
        "engines/hopfield/test_graph_facts.py -k linearised",
    ),
    "counting: what a transposed edge sends down counts twice": Sabotage(
        "nets/synapses/dense.py",
        '    @counted("forward")\n    def linear_part',
        '    @counted("forward")\n    @counted("forward")\n    def linear_part',
        "rules/test_conformance.py -k products",
    ),
    "copies: imaginary parts get a bias": Sabotage(
        "engines/hopfield/copies.py",
        "self.copies.imaginary(drive).sub_(self._offset)",
        "pass",
        "rules/test_holomorphic_ep.py",
    ),
    "contrast: both of its states pull the same way": Sabotage(
        "rules/equilibrium_prop.py",
        "WeightedNudge(low, -1 / (high - low))",
        "WeightedNudge(low, 1 / (high - low))",
        "rules/test_equilibrium_prop.py",
    ),
    "contrast: the clamped and the free state change places": Sabotage(
        "rules/contrastive_hebbian.py",
        "[1 / self.beta, -1 / self.beta]",
        "[-1 / self.beta, 1 / self.beta]",
        "rules/test_contrastive_hebbian.py",
    ),
    "phases: a nudged phase starts at zero": Sabotage(
        "engines/hopfield/contrasts.py",
        "for each in (free.drives, free.states))",
        "for each in (free.drives, {k: 0 * z for k, z in free.states.items()}))",
        "rules/test_equilibrium_prop.py",
    ),
    "phases: every nudge starts where the free phase ended": Sabotage(
        "rules/holomorphic_ep.py",
        "states, settled = self.phase.run(self.net, drives, states, one, force=force, noise=noise)",
        "states, settled = self.phase.run(self.net, drives, {k: one.spread(z) for k, z in free.states.items()}, "
        "one, force=force, noise=noise)",
        "rules/test_holomorphic_ep.py",
    ),
    "phases: a warm start is cold": Sabotage(
        "rules/relaxing.py",
        "kept = self.free.start(*inputs.values()) if warm else []",
        "kept = []",
        "engines/test_slots.py",
    ),
    "state: what inference draws is not put back": Sabotage(
        "rules/base.py",
        "        finally:\n            self._restore(before)",
        "        finally:\n            pass",
        "rules/test_rule.py",
    ),
    "state: what is refused has been taken half": Sabotage(
        "rules/base.py",
        "            self._restore(before)\n            raise",
        "            raise",
        "rules/test_rule.py",
    ),
    "state: an optimizer forgets its momenta": Sabotage(
        "rules/state.py",
        "kept.state[p] = of_it",
        "kept.state[p] = {}",
        "rules/test_rule.py",
    ),
    "lifted: a penalty half as steep": Sabotage(
        "engines/lifted/objective.py",
        "half = torch.mul(rise, 0.5, out=room(rise))",
        "half = torch.mul(rise, 1.0, out=room(rise))",
        "engines/lifted/test_lifted.py",
    ),
    "lifted: feedback by the inverse ratio of the nudges": Sabotage(
        "engines/lifted/objective.py",
        "ratio = self.beta[source - 1] / self.beta[target - 1]",
        "ratio = self.beta[target - 1] / self.beta[source - 1]",
        "engines/lifted/test_lifted_graphs.py",
    ),
    "feedback maps: noise on one side alone": Sabotage(
        "engines/feedback_maps.py",
        ".sub_(outer(u, dx.to(dtype)))",
        ".sub_(outer(v, dx.to(dtype)))",
        "rules/test_target_prop_feedback.py",
    ),
    "pools: a neuron wins twice and is paid once": Sabotage(
        "nets/synapses/pools.py",
        "if self.stride >= self.size:",
        "if self.stride >= 1:",
        "nets/test_pools.py",
    ),
    "pools: a soft-max that forgets where its mean is": Sabotage(
        "nets/synapses/pools.py",
        "constant = torch.addcmul(scale, mean, rate, value=-1, out=room(scale))",
        "constant = scale",
        "nets/test_holomorphic_pools.py",
    ),
    "products: pixels that no stride reaches": Sabotage(
        "nets/kernels/products.py",
        "None, stride, padding, rest, groups, dilation)",
        "None, stride, padding, 0, groups, dilation)",
        "nets/test_conv_products.py",
    ),
    "products: patches without their padding": Sabotage(
        "nets/kernels/products.py",
        "begin = offset + stride * first",
        "begin = max(offset, 0) + first",
        "nets/test_conv_products.py",
    ),
    "synapses: W and B share the memory of a gradient": Sabotage(
        "nets/synapses/weights.py",
        "self.add(follower, converted(gradient, follower.dtype, copy=True))",
        "self.add(follower, converted(gradient, follower.dtype))",
        "rules/test_conformance.py -k kp-dp",
    ),
    "weights: spectral norm's vectors move with every product": Sabotage(
        "nets/synapses/weights.py",
        "        if key not in self._computed:",
        "        if True:",
        "rules/test_weights.py -k dense-dp-spectral",
    ),
    "weights: two layers that share one pass its gradient on twice": Sabotage(
        "nets/synapses/weights.py",
        "        if left > 0:",
        "        if False:",
        "rules/test_weights.py -k share",
    ),
    "convert: what is compiled by itself is looked at as a whole call is": Sabotage(
        "convert/_mode.py",
        "return None if torch.compiler.is_compiling() else self.inspection",
        "return self.inspection",
        "convert/test_hooks.py -k compiled_by_themselves",
    ),
    "convert: a buffer counts only where its own module runs": Sabotage(
        "convert/_hooks.py",
        "mode.fixed.update(dict.fromkeys(module.buffers()))",
        "pass",
        "convert/test_batch.py -k table_of_positions",
    ),
    "weights: autograd calls hooks that the step calls, too": Sabotage(
        "nets/synapses/weights.py",
        "hooks.clear()  # the very dictionary that autograd reads",
        "pass",
        "rules/test_weights.py -k called_once",
    ),
    "weights: what a parameter's hook makes of its gradient is not taken": Sabotage(
        "nets/synapses/weights.py",
        "gradient = gradient if made is None else made",
        "gradient = gradient if made is None else gradient",
        "rules/test_weights.py -k mask",
    ),
    "convert: layers that share W have a B each": Sabotage(
        "convert/feedback.py",
        "        if weight not in made:",
        "        if True:",
        "convert/test_kolen_pollack.py -k decay_towards",
    ),
    "losses: the nudge away is divided as the nudge towards": Sabotage(
        "nets/losses.py",
        "y, alpha=down).div_(1 - down)",
        "y, alpha=down).div_(1 + down)",
        "nets/test_losses.py",
    ),
    "losses: the samples of a batch share a nudge": Sabotage(
        "nets/losses.py",
        "self.gradient(f(a), y), ",
        "self.gradient(f(a), y) / len(a), ",
        "rules/test_conformance.py -k duplicating",
    ),
    "losses: smoothing that leaves less than one": Sabotage(
        "nets/losses.py",
        "self.label_smoothing / shape[1]",
        "self.label_smoothing / (shape[1] + 1)",
        "training/test_options.py",
    ),
    "potentials: a ReLU falls as far as it is nudged": Sabotage(
        "nets/kernels/relu.py",
        "return h, torch.minimum(nudge, h, out=out)",
        "return h, nudge",
        "nets/test_potentials.py",
    ),
    "potentials: outside the bounds a nudge counts as inside": Sabotage(
        "nets/potentials/projection.py",
        "inside = (plus >= self.low) & (plus <= self.high)",
        "inside = (plus >= self.low)",
        "nets/test_potentials.py",
    ),
    "counting: what autograd feeds back is left out": Sabotage(
        "nets/counting.py",
        '("feedback", p.requires_grad)',
        '("feedback", False)',
        "nets/test_counting.py -k bp",
    ),
    "plain: a pool in front is forgotten": Sabotage(
        "nets/synapses/weighted.py",
        "return self._behind_pool(*before, module)",
        "return [*before, module]",
        "nets/test_plain.py",
    ),
    "convert: the two shares of a nudge swapped": Sabotage(
        "convert/activations.py",
        "plus = f(torch.add(a, g, alpha=(1 - alpha) * scale), *settings)",
        "plus = f(torch.add(a, g, alpha=alpha * scale), *settings)",
        "convert/test_activations.py",
    ),
    "resume: images are augmented by their place since the start": Sabotage(
        "data/batches.py",
        "drawn(self.seed, epoch, number)",
        "drawn(self.seed, epoch, number - start)",
        "data/test_batches.py",
    ),
    "data: links lead out of a folder": Sabotage(
        "data/_tree.py",
        "return target.is_file() and target.is_relative_to(within)",
        "return target.is_file()",
        "data/test_folder.py -k links",
    ),
    "data: what is transparent is laid on black": Sabotage(
        "data/_images.py",
        "(background,) * 3 + (255,)",
        "(0, 0, 0, 255)",
        "data/test_folder.py -k transparent",
    ),
    "data: images are turned the other way": Sabotage(
        "data/_images.py",
        "6: Image.Transpose.ROTATE_270",
        "6: Image.Transpose.ROTATE_90",
        "data/test_folder.py -k upright",
    ),
    "data: deep colours are cut": Sabotage(
        "data/_images.py",
        '_DEEP = re.compile(r";(16|32)[A-Z]|SGI16")',
        '_DEEP = re.compile(r";32[A-Z]")',
        "data/test_folder.py -k deep",
    ),
    "data: the names of classes are not verified": Sabotage(
        "data/official.py",
        'hashlib.blake2b(names + b"".join(sorted(rows)), digest_size=16)',
        'hashlib.blake2b(b"".join(sorted(rows)), digest_size=16)',
        "data/test_official.py",
    ),
    "data: any key is hashed": Sabotage(
        "data/_unpickle.py",
        "if not short or",
        "if",
        "data/test_unpickle.py -k keys",
    ),
    "data: memory is reckoned for the images alone": Sabotage(
        "data/folder.py",
        "kept + largest,",
        "kept,",
        "data/test_folder.py -k strip",
    ),
    "data: labels are not part of a fingerprint": Sabotage(
        "data/fingerprint.py",
        "for tensor in (part.images, part.labels, part.rows):",
        "for tensor in (part.images, part.rows):",
        "data/test_own.py -k fingerprint",
    ),
    "data: the validation part is trained on, too": Sabotage(
        "data/items.py",
        "self.workers, self.rows[indices], self.batch_size)",
        "self.workers, self.rows, self.batch_size)",
        "data/test_own.py",
    ),
    "resume: other data are taken": Sabotage(
        "training/experiment.py",
        'if before not in ("", fingerprint):',
        "if False:",
        "training/test_own.py -k contradict",
    ),
    "resume: a record too many is dropped": Sabotage(
        "runs/metrics.py",
        'if record["step"] <= step)',
        'if record["step"] < step)',
        "runs/test_runs.py",
    ),
    "resume: settings edited meanwhile are taken": Sabotage(
        "runs/folder.py",
        'if checkpoint.pop("settings", None) != self.digest:',
        'if checkpoint.pop("settings", None) is None:',
        "runs/test_hostile.py -k edited",
    ),
    "resume: momenta of any shape": Sabotage(
        "rules/state.py",
        "or state.shape != kept.shape",
        "",
        "runs/test_hostile.py -k momentum",
    ),
    "resume: a loader's order is drawn anew": Sabotage(
        "training/repeated.py",
        'restored({"global": torch.default_generator, **self._own}, self._begun, "data")',
        "self._begun",
        "training/test_going_on.py -k loader",
    ),
    "records: an invented result is believed": Sabotage(
        "training/result.py",
        "if theirs != ours:",
        "if theirs is None:",
        "runs/test_hostile.py -k invented",
    ),
    "records: a result of another run in a comparison": Sabotage(
        "studies/comparison.py",
        "net=ours.net, resume=True, **how)",
        "net=ours.net, resume=not path.exists(), **how)",
        "runs/test_hostile.py -k another",
    ),
    "records: a header of any length": Sabotage(
        "runs/checkpoint.py",
        "> LARGEST_HEADER:",
        "> LARGEST:",
        "runs/test_hostile.py -k header",
    ),
    "report: published seeds do not count": Sabotage(
        "studies/report/verdict.py",
        "published.std**2 / published.seeds",
        "published.std**2",
        "studies/report/test_verdict.py",
    ),
    "report: a shortened schedule is compared": Sabotage(
        "studies/report/rows.py",
        "unlike = group.unlike or",
        'unlike = "" or',
        "studies/report/test_document.py",
    ),
    "devices: both halves of a dyad are one device": Sabotage(
        "nets/devices/net.py",
        "return Leaving(self.ideal, self.other, self.line)",
        "return self",
        "rules/test_devices.py -k draw_apart",
    ),
    "devices: what is learnt crosses the channel, too": Sabotage(
        "nets/counting.py",
        'if crossing.OPEN and kind != "gradient":',
        "if crossing.OPEN:",
        "rules/test_devices.py -k still_devices",
    ),
    "devices: states read once more are others": Sabotage(
        "engines/dyads/blocks.py",
        "if f.draws:",
        "if False:",
        "rules/test_devices.py -k very_states",
    ),
    "devices: predictions draw what updates would": Sabotage(
        "nets/devices/places.py",
        "self.drawing = self._generator if learns else self._predicting",
        "self.drawing = self._generator",
        "rules/test_devices.py -k predictions",
    ),
    "devices: imaginary parts have offsets": Sabotage(
        "nets/devices/channels.py",
        "return replace(self, offset=0.0)",
        "return self",
        "nets/test_channels.py -k complex",
    ),
    "devices: validation is paid for": Sabotage(
        "training/callbacks/costs.py",
        "def learning(self",
        "def during(self",
        "training/test_costs.py -k alone",
    ),
    "devices: a run is tested again on ideal ones": Sabotage(
        "training/predictor.py",
        "**chosen, **channels(settings))",
        "**chosen)",
        "cli/test_devices.py -k again",
    ),
    "devices: pulses are never rounded up": Sabotage(
        "nets/devices/optimizer.py",
        "number = torch.floor(number.add_(torch.rand(number.shape, generator=generator).to(w)))",
        "number = torch.floor(number)",
        "nets/test_pulsed.py -k wanted",
    ),
    "workers: a difference is used with another batch's mean": Sabotage(
        "training/workers/in_flight.py",
        "flown = self._ring.get(batch)",
        "flown = self._ring.get(batch) and next(filter(None, self._ring.values()))",
        "training/workers/test_interleavings.py -k its_own",
    ),
    "workers: what comes twice is learnt from twice": Sabotage(
        "training/workers/in_flight.py",
        "self._ring[batch] = None",
        "self._ring[batch] = flown",
        "training/workers/test_interleavings.py -k in_flight",
    ),
    "workers: a lost message is waited for": Sabotage(
        "training/workers/in_flight.py",
        "if self._away and now >= self._clock.deadline(min(self._away.values())):",
        "if False:",
        "training/workers/test_interleavings.py -k in_flight",
    ),
    "workers: a snapshot is older than it says": Sabotage(
        "training/workers/worker.py",
        '"optimizer": None if optimizer is None else saved(optimizer),',
        '"optimizer": None if optimizer is None else saved(type(optimizer)(optimizer.param_groups)),',
        "training/workers/test_snapshots.py -k stopped",
    ),
    "workers: a held worker hears another batch": Sabotage(
        "training/workers/held.py",
        "elif message.batch < self.batch:",
        "elif message.batch < self.batch - 1:",
        "training/workers/test_interleavings.py -k held",
    ),
    "workers: who is slow holds the others up": Sabotage(
        "training/workers/share.py",
        "slow = 0 < SLOW * others < self._usual and self._begun > MEMORY",
        "slow = False",
        "training/workers/test_slow.py -k neighbours",
    ),
    "workers: what a slow one leaves out comes down as if it were there": Sabotage(
        "training/workers/in_flight.py",
        "feedback.new_zeros(",
        "feedback.new_ones(",
        "training/workers/test_slow.py -k gradient",
    ),
    "workers: who has no key is heard": Sabotage(
        "training/workers/sockets.py",
        "return encoded == self._public",
        "return True",
        "training/workers/test_bad_input.py -k key",
    ),
    "workers: a damaged message is believed": Sabotage(
        "training/workers/message.py",
        "if zlib.crc32(body, zlib.crc32(header)) != checksum:",
        "if False:",
        "training/workers/test_message.py -k bit",
    ),
    "workers: a full disk ends training": Sabotage(
        "training/workers/patient.py",
        "except CheckpointError as error:",
        "except KeyError as error:",
        "training/workers/test_faults.py -k disk",
    ),
    "workers: the virtual clock charges the first layer a way down": Sabotage(
        "training/workers/worker.py",
        "self.down = sum(work[1:] if part.takes_inputs else work) / (sum(work) or 1.0)",
        "self.down = 1.0",
        "training/workers/test_simulated.py",
    ),
    "workers: what is open at the end is forgotten": Sabotage(
        "training/workers/simulated.py",
        "worker.finish()",
        "pass",
        "training/workers/test_simulated.py -k end",
    ),
    "workers: on a cluster all listen on the driver's address": Sabotage(
        "training/workers/zeromq.py",
        "self._listening = zeromq.host if here is None else HERE",
        "self._listening = zeromq.host or here",
        "training/workers/test_faults.py -k cluster",
    ),
    "devices: pulses without the closure that Lightning steps by": Sabotage(
        "nets/devices/optimizer.py",
        "loss = closure()",
        "loss = None",
        "nets/test_pulsed.py -k closure",
    ),
    "records: pictures of another sample": Sabotage(
        "training/callbacks/pictures.py",
        "_thinned(layers[k][0], room)",
        "_thinned(layers[k][-1], room)",
        "training/test_pictures.py",
    ),
    "records: links are written through": Sabotage(
        "files.py",
        "os.replace(draft, path)",
        "path.write_bytes(draft.read_bytes()), draft.unlink()",
        "test_files.py -k link",
    ),
    "records: a net is made from today's defaults": Sabotage(
        "training/experiment.py",
        "arguments = recorded.net if recorded else",
        "arguments =",
        "training/test_resolved.py -k stopped",
    ),
    "records: a schedule without its seed": Sabotage(
        "engines/dyads/schedules/base.py",
        "for _, value in values)",
        "for _, value in values[:1])",
        "training/test_resolved.py -k words",
    ),
    "metrics: six guesses for the top five": Sabotage(
        "training/meter.py",
        '"accuracy_top5": 5',
        '"accuracy_top5": 6',
        "training/test_trainer.py -k readme",
    ),
    "resume: what no record has told yet is forgotten": Sabotage(
        "training/meter.py",
        '"untold": self.untold.state_dict()',
        '"untold": Tally().state_dict()',
        "training/test_trainer.py -k goes_on",
    ),
    "trainer: an average over batches, not updates": Sabotage(
        "training/trainer.py",
        "callback.update(self)",
        "callback.update(self) if update is first else None",
        "training/test_trainer.py -k order",
    ),
    "data parallel: every process counts alike": Sabotage(
        "training/processes/group.py",
        ".mul_(self._share)",
        ".div_(self.count)",
        "training/test_parallel.py",
    ),
    "data parallel: outputs come back in another order": Sabotage(
        "training/processes/group.py",
        "torch.stack(parts, 1)",
        "torch.stack(parts, 0)",
        "training/test_parallel.py -k parts",
    ),
    "streams: an error learns with what is below now": Sabotage(
        "engines/dyads/circuit.py",
        "link = self._links[own][e]",
        "link = self._links[slot][e]",
        "training/stream/test_learner.py -k reverse",
    ),
    "streams: a difference is taken at the drive of now": Sabotage(
        "engines/dyads/circuit.py",
        "met = own.total",
        "met = a",
        "training/stream/test_learner.py -k reverse",
    ),
    "streams: feedback through pools as they are now": Sabotage(
        "engines/dyads/circuit.py",
        "link, beside = self._links[self._above(e, slot)][e], self._sent[e]",
        "link, beside = self._links[slot][e], self._sent[e]",
        "training/stream/test_nets.py -k pools",
    ),
    "streams: what comes down is looked at after the update above": Sabotage(
        "engines/dyads/circuit.py",
        "if instruction.do is Do.UPDATE and not latched:",
        "if instruction.do is Do.LEARN and not latched:",
        "training/stream/test_learner.py",
    ),
    "streams: a short cut does not wait for the long way up": Sabotage(
        "engines/dyads/circuit.py",
        "self._neurons[(slot - self._ages[k] + self._ages[j]) % self.slots][j], above)",
        "self._neurons[slot if j == 0 else slot - 1][j], above)",
        "training/stream/test_graphs.py -k reverse",
    ),
    "streams: a short cut does not wait for the long way down": Sabotage(
        "engines/dyads/circuit.py",
        "return (self._own(j, slot) + self._ages[k] - self._ages[j]) % self.slots",
        "return (slot - 1 - self._lags[k]) % self.slots",
        "training/stream/test_graphs.py -k reverse",
    ),
    "streams: a module sends down by the weights that it went up by": Sabotage(
        "nets/synapses/local.py",
        "lasting = False",
        "lasting = True",
        "training/stream/test_graphs.py -k module",
    ),
    "streams: an output is nudged while it is not": Sabotage(
        "engines/dyads/circuit.py",
        "label if instruction.nudged else None",
        "label or next(iter(self.labels.values()))",
        "training/stream/test_learner.py -k any_schedule",
    ),
    "streams: a label acts a tick late": Sabotage(
        "training/stream/learner.py",
        "known = self._book.get(tick - back)",
        "known = self._book.get(tick - back - 1)",
        "training/stream/test_learner.py -k twins",
    ),
    "streams: one step length for all samples of a tick": Sabotage(
        "training/stream/steps.py",
        "flat.square().sum(1)",
        "flat.square().sum()",
        "training/stream/test_learner.py -k normalised",
    ),
    "streams: what is below on average moves weights": Sabotage(
        "training/stream/steps.py",
        "torch.sub(flat, m, out=c)",
        "c.copy_(flat)",
        "training/stream/test_learner.py -k twins",
    ),
    "streams: a convolution learns from what was below before": Sabotage(
        "training/stream/steps.py",
        "shift(z, link.operand if link.fresh else None)",
        "shift(z, link.operand)",
        "training/stream/test_nets.py -k at_once",
    ),
    "streams: a line without a place is not counted": Sabotage(
        "training/stream/sources/pipe.py",
        "self.dropped += 1",
        "pass",
        "training/stream/test_pipe.py -k dropped",
    ),
    "streams: states are lost where the net grows": Sabotage(
        "training/stream/learner.py",
        "self._begin(None if shape is None else (shape[0] + inputs,), kept)",
        "self._begin(None if shape is None else (shape[0] + inputs,))",
        "training/stream/test_growth.py",
    ),
    "streams: a folder that has changed is gone on with": Sabotage(
        "training/stream/sources/images.py",
        "return self._digest(-(-items // self._settings.hold))",
        "return self._digest(0)",
        "cli/test_stream.py -k had_of_a_folder",
    ),
    "streams: labels that wait are not kept": Sabotage(
        "training/stream/learner.py",
        'self._book.load_state_dict(state["labels"])',
        "self._book.load_state_dict(Book().state_dict())",
        "training/stream/test_resume.py -k bit",
    ),
    "tables: another rule's setting is the same cell": Sabotage(
        "studies/tables/makers/base.py",
        "used[part][name] == value if name in used[part] else name not in chosen[part]",
        "name in used[part] or name not in chosen[part]",
        "studies/tables/test_definition.py -k say",
    ),
    "tables: a shortened schedule is the paper's": Sabotage(
        "studies/tables/makers/base.py",
        "for name, (ours, theirs) in both.items() if ours != theirs}",
        'for name, (ours, theirs) in both.items() if ours != theirs and name != "epochs"}',
        "studies/tables/test_definition.py -k say",
    ),
    "tables: a budget asked again takes another": Sabotage(
        "studies/tables/reproduction.py",
        "epochs = budgeted(folder, asked) if budget is not None else None",
        "epochs = None",
        "studies/tables/test_reproduction.py -k kept",
    ),
    "tables: the order by another line than the best": Sabotage(
        "studies/tables/makers/order.py",
        "return covariance / sum((p - mean_u) ** 2 for p in u)",
        "return covariance / sum(p**2 for p in u)",
        "studies/tables/test_makers.py -k order",
    ),
    "recipes: a warm-up that is to stay shrinks": Sabotage(
        "training/recipes/__init__.py",
        "scale = min if name in unscaled else _scaled",
        "scale = _scaled",
        "training/test_recipes.py -k warm",
    ),
}


def main(words: list[str]) -> int:
    """Try the sabotages with one of these words in their name, or all of them; how many stayed green."""
    chosen = {name: s for name, s in SABOTAGES.items() if not words or any(word in name for word in words)}
    if not chosen:
        raise SystemExit(f"no sabotage has one of these words in its name: {', '.join(words)}")
    green = 0
    for name, sabotage in chosen.items():
        red = sabotage.turns_red()
        green += not red
        print(f"{'red  ' if red else 'GREEN'}  {name}  (tests/{sabotage.tests})", flush=True)
    print(f"{len(chosen) - green} of {len(chosen)} sabotages turned the suite red")
    return green


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
