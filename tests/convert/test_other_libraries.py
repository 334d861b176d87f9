"""Models and training loops of other libraries, made from configurations; skipped where one is not installed."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dualprop as dp
from tests.oracles.finite_difference import FUNCTIONS, difference

pytestmark = pytest.mark.slow


def together(ours, theirs):
    a, b = (torch.cat([g.double().flatten() for g in side]) for side in (ours, theirs))
    return float(a @ b / a.norm() / b.norm())


def checked(model, loss, kinds, beta=1e-3):
    """Converted, the output is the same, the gradient close to back-propagation's, and not the same."""
    named = [p for p in model.parameters() if p.requires_grad]

    def gradients():
        torch.manual_seed(0)
        value = loss(model)
        return value.detach(), torch.autograd.grad(value, named, allow_unused=True)

    plain, theirs = gradients()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*(rounding|own autograd|keeps its ordinary)")
        dp.convert(model, beta=beta)
        value, ours = gradients()
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None]
    assert torch.equal(value, plain)
    assert together(*zip(*pairs, strict=True)) > 0.9999
    assert any(not torch.equal(a, b) for a, b in pairs)
    assert kinds <= {kind for kinds in dp.conversion(model).met.values() for kind in kinds.split(", ")}
    return dp.conversion(model)


def tokens():
    return torch.randint(0, 50, (4, 7), generator=torch.Generator().manual_seed(0))


def bert():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(vocab_size=50, num_labels=3, **sizes)
    )


def gpt2():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    )


def test_bert_and_gpt2():
    labels = torch.tensor([0, 1, 2, 0])
    checked(bert().double(), lambda m: m(input_ids=tokens(), labels=labels).loss, {"GELU", "Tanh"})
    ids = tokens()
    checked(gpt2().double(), lambda m: m(input_ids=ids, labels=ids).loss, {"Tanh"})


@pytest.mark.parametrize("make", [bert, gpt2])
def test_under_the_trainer_of_hugging_face(make, tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    ids = tokens()

    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, k):
            return {"input_ids": ids[k], "labels": ids[k] if make is gpt2 else k % 3, "ignored": 1}

    weights = {}
    for kind in ("ordinary", "converted"):
        model = make()
        if kind == "converted":
            dp.convert(model, beta=30.0)
        arguments = transformers.TrainingArguments(
            str(tmp_path),
            max_steps=3,
            per_device_train_batch_size=4,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            learning_rate=1e-2,
            seed=0,
        )
        transformers.Trainer(model=model, args=arguments, train_dataset=Data()).train()
        weights[kind] = [p.detach() for p in model.parameters()]
        if kind == "converted":
            assert dp.conversion(model).samples == 4
            assert dp.conversion(model).met
    assert any(not torch.allclose(a, b) for a, b in zip(*weights.values(), strict=True))


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("resnet10t", {"ReLU"}),
        ("mobilenetv3_small_050", {"ReLU", "Hardswish"}),
        ("vit_tiny_patch16_224", {"GELU"}),
    ],
)
def test_timm(name, kinds):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    settings = {"img_size": 32} if "vit" in name else {}
    model = timm.create_model(name, num_classes=5, **settings).double()
    for p in model.get_classifier().parameters():
        nn.init.normal_(p, std=0.1)
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    checked(model, lambda m: F.cross_entropy(m(x), torch.arange(4)), kinds, beta=1e-5)


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def by_hand(net, x, s):
    return net[2](difference(net[0](x), FUNCTIONS["tanh"], s))


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
@pytest.mark.filterwarnings("ignore")
def test_under_the_trainer_of_lightning(precision, tmp_path):
    lightning = pytest.importorskip("lightning")
    x, y = torch.randn(8, 6), torch.arange(8) % 3

    class Task(lightning.LightningModule):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def training_step(self, batch, _):
            with dp.scaled_loss(times=1 / 2):  # Lightning divides by the number of batches that it accumulates
                return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.5)

    net, twin = dp.convert(small(), beta=5.0), small()
    trainer = lightning.Trainer(
        max_epochs=1,
        accumulate_grad_batches=2,
        accelerator="cpu",
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)
    trainer.fit(Task(net), loader)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.5)
    for k in (0, 4):
        (F.cross_entropy(by_hand(twin, x[k : k + 4], 5.0 * 4 * 2), y[k : k + 4]) / 2).backward()
    optimizer.step()
    tolerance = 1e-5 if precision == "32-true" else 2e-2
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_under_skorch():
    skorch = pytest.importorskip("skorch")
    x, y = torch.randn(8, 6), torch.arange(8) % 3
    net, twin = dp.convert(small(), beta=5.0), small()
    learner = skorch.NeuralNet(
        net,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        lr=0.5,
        max_epochs=3,
        batch_size=-1,
        train_split=None,
        verbose=0,
    )
    learner.fit(x, y)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(by_hand(twin, x, 5.0 * 8), y).backward()
        optimizer.step()
    for a, b in zip(learner.module_.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_torchvision_swin_googlenet_and_a_detection_model():
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    swin = torchvision.models.swin_v2_t(num_classes=5).double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    made = checked(swin, lambda m: F.cross_entropy(m(x), torch.arange(2)), {"GELU", "ReLU"})
    positions = {name: kind for name, kind in made.without_batch.items() if kind == "ReLU"}
    assert len(positions) == 12  # of the nets over tables of offsets, one a block
    google = torchvision.models.googlenet(num_classes=5, aux_logits=True, init_weights=False).double()

    def three(m):
        out = m(torch.nn.functional.interpolate(x, 96))
        return sum(F.cross_entropy(z, torch.arange(2)) for z in (out.logits, out.aux_logits1, out.aux_logits2))

    checked(google, three, {"ReLU"})
    detect = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3
    ).double()
    images = [torch.rand(3, 320, 320, dtype=torch.float64) for _ in range(2)]
    targets = [
        {"boxes": torch.tensor([[10.0, 10, 200, 200]]).double(), "labels": torch.tensor([1])} for _ in images
    ]
    with pytest.warns(
        UserWarning, match=r"SSD: B = 3, of the first tensor, but an argument is a list of 2 tensors"
    ):
        dp.convert(copy.deepcopy(detect))(images, targets)
    dp.convert(detect, batch=lambda images, targets=None: len(images))
    sum(detect(images, targets).values()).backward()
    assert dp.conversion(detect).samples == 2
    assert all(bool(p.grad.isfinite().all()) for p in detect.parameters() if p.grad is not None)
