#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The workloads of the benchmarks in PyTorch, MONAI and SciPy, at their best setting.

Reads lines "NAME THREADS" from standard input, prepares and warms up that workload in every setting
that may be the best one (memory formats, other functions with the same result), keeps the fastest,
and answers each line with "MS SETTING", or with "- REASON" where there is no peer.

  peer_torch.py [--stock] [--compile SECONDS]  serve
  peer_torch.py [--stock] --peak-rss NAME THREADS
                                               MiB that two runs need above those of the imports
  peer_torch.py --versions                     the versions, as JSON

--stock leaves glibc's malloc as it is; otherwise it keeps memory and takes huge pages, without
which large tensors cost page faults on every operation. --compile also tries torch.compile on the
better memory format of a network, for at most so many seconds.
"""
import contextlib
import importlib
import json
import os
import re
import signal
import statistics
import sys
import time

TUNABLES = ":".join((
    "glibc.malloc.hugetlb=1",
    "glibc.malloc.mmap_max=0",
    "glibc.malloc.trim_threshold=17179869184",
    "glibc.malloc.top_pad=268435456",
    "glibc.malloc.arena_max=1",
))
if "--stock" not in sys.argv and os.environ.get("GLIBC_TUNABLES") != TUNABLES:
    # malloc reads them when a process starts.
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "GLIBC_TUNABLES": TUNABLES})

import torch
import torch.nn as nn
import torch.nn.functional as F

from unet_torch import UNet


def optional(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def peak_memory():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def seconds_of(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def formats(dim=3):
    """Where channels may lie: the name and the memory format."""
    last = torch.channels_last_3d if dim == 3 else torch.channels_last
    return (("contiguous", torch.contiguous_format), ("channels last", last))


def quiet(work):
    """A run without gradients that returns its seconds."""
    def run():
        with torch.no_grad():
            return seconds_of(work)
    return run


# ---- each function below returns {setting: run}, and a run returns the seconds that count


def elementwise(make, channels, extent, backward):
    found = {}
    for name, memory in formats():
        function, parameters = make(channels)
        x = torch.randn(1, channels, extent, extent, extent).to(memory_format=memory)
        if not backward:
            found[name] = quiet(lambda f=function, x=x: f(x))
            continue
        x.requires_grad_(True)
        y = function(x)
        g = torch.randn_like(y)
        wanted = [x, *parameters]
        found[name] = lambda y=y, wanted=wanted, g=g: seconds_of(
            lambda: torch.autograd.grad(y, wanted, g, retain_graph=True))
    return found


def instance_norm(channels):
    norm = nn.InstanceNorm3d(channels, affine=True)
    return lambda x: F.leaky_relu_(norm(x), 0.01), list(norm.parameters())


def layer_norm(channels):
    norm = nn.LayerNorm(channels)

    # Over the channels of each voxel.
    def normalized(x):
        return norm(x.movedim(1, -1)).movedim(-1, 1)
    return normalized, list(norm.parameters())


def group_norm(channels):
    norm = nn.GroupNorm(8, channels)
    return lambda x: F.leaky_relu_(norm(x), 0.01), list(norm.parameters())


def conv_norm_act_conv(channels, extent, train):
    found = {}
    for name, memory in formats():
        chain = nn.Sequential(
            nn.Conv3d(channels, channels, 3, padding=1, bias=False),
            nn.InstanceNorm3d(channels, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
            nn.Conv3d(channels, channels, 3, padding=1, bias=False),
        ).to(memory_format=memory)
        x = torch.randn(1, channels, extent, extent, extent).to(memory_format=memory)
        if not train:
            found[name] = quiet(lambda f=chain, x=x: f(x))
            continue
        x.requires_grad_(True)
        g = torch.randn_like(x)
        wanted = [x, *chain.parameters()]
        found[name] = lambda f=chain, x=x, wanted=wanted, g=g: seconds_of(
            lambda: torch.autograd.grad(f(x), wanted, g))
    return found


def dice_ce(logits, labels, onehot_of):
    """Dice over all classes, 1e-5 in both parts of the fraction, plus cross-entropy: the mean of
    MONAI's DiceCELoss(softmax=True, to_onehot_y=True)."""
    p = torch.softmax(logits, 1)
    onehot = onehot_of(logits)
    axes = list(range(2, logits.dim()))
    overlap = torch.sum(p * onehot, axes)
    sizes = torch.sum(p, axes) + torch.sum(onehot, axes)
    dice = 1 - (2 * overlap + 1e-5) / (sizes + 1e-5)
    return dice.mean() + F.cross_entropy(logits, labels[:, 0])


def losses(labels):
    """The same loss in two ways of writing it."""
    def scattered(logits):
        return dice_ce(logits, labels, lambda z: torch.zeros_like(z).scatter_(1, labels, 1))
    found = {"formula": scattered}
    monai = optional("monai.losses")
    if monai:
        loss = monai.DiceCELoss(softmax=True, to_onehot_y=True)
        found["MONAI"] = lambda logits: loss(logits, labels)
    return found


def dice_ce_loss(classes, extent, backward):
    found = {}
    labels = torch.randint(0, classes, (1, 1, extent, extent, extent))
    for layout, memory in formats():
        x = torch.randn(1, classes, extent, extent, extent).to(memory_format=memory)
        for name, loss in losses(labels).items():
            if backward:
                x.requires_grad_(True)
                run = lambda x=x, loss=loss: seconds_of(lambda: torch.autograd.grad(loss(x), x))
            else:
                run = quiet(lambda x=x, loss=loss: loss(x))
            found[f"{name}, {layout}"] = run
    return found


class TooLong(BaseException):
    """Not an Exception, so that no library takes it for one of its own."""


@contextlib.contextmanager
def at_most(seconds):
    def stop(*_):
        raise TooLong
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def networks(dim, make, half):
    """`make(net, memory format)` gives the run of a network: in each memory format, and of the
    better one compiled."""
    precision = torch.autocast("cpu", dtype=torch.bfloat16) if half else contextlib.nullcontext()

    def precise(run):
        def inside():
            with precision:
                return run()
        return inside

    nets, found = {}, {}
    for name, memory in formats(dim):
        nets[name] = (UNet(dim).to(memory_format=memory), memory)
        found[name] = precise(make(*nets[name]))
    limit = float(sys.argv[sys.argv.index("--compile") + 1]) if "--compile" in sys.argv else 0
    if limit > 0 and not half and hasattr(torch, "compile"):
        best, run = fastest(found)
        net, memory = nets[best]
        try:
            torch._dynamo.reset()
            compiled = precise(make(torch.compile(net, dynamic=False), memory))
            with at_most(limit):
                compiled()
            found = {best: run, f"{best}, compiled": compiled}
        except TooLong:
            print(f"torch.compile took more than {limit:g} s and is left out", file=sys.stderr)
        except Exception as why:  # whatever a compiler may lack
            print(f"torch.compile is left out: {str(why).strip().splitlines()[:1]}",
                  file=sys.stderr)
    return found


def unet_inference(dim, extents, half=False):
    def make(net, memory):
        x = torch.randn(1, 1, *extents).to(memory_format=memory)
        net.eval()
        return quiet(lambda: net(x))
    return networks(dim, make, half)


def unet_training(dim, extents, batch, half=False):
    labels = torch.randint(0, 3, (batch, 1, *extents))
    loss = losses(labels)["formula"]

    def make(net, memory):
        x = torch.randn(batch, 1, *extents).to(memory_format=memory)
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-2, momentum=0.99, nesterov=True,
                                    weight_decay=3e-5)

        def step():
            optimizer.zero_grad(set_to_none=True)
            loss(net(x).float()).backward()
            optimizer.step()

        return lambda: seconds_of(step)
    return networks(dim, make, half)


def convolution(kind, which, channels, extents):
    """One of a convolution's three passes."""
    inputs, outputs = channels
    found = {}
    for name, memory in formats():
        if kind == "ConvT3d":
            layer = nn.ConvTranspose3d(inputs, outputs, 2, 2)
        elif kind == "Conv3d1x1":
            layer = nn.Conv3d(inputs, outputs, 1)
        else:
            layer = nn.Conv3d(inputs, outputs, 3, 2 if kind == "Conv3dStride2" else 1, 1)
        layer = layer.to(memory_format=memory)
        x = torch.randn(1, inputs, *extents).to(memory_format=memory)
        if which == "Fwd":
            found[name] = quiet(lambda layer=layer, x=x: layer(x))
            continue
        x.requires_grad_(which == "BwdData")
        layer.requires_grad_(which == "BwdWeights")
        y = layer(x)
        g = torch.randn_like(y)
        wanted = [x] if which == "BwdData" else list(layer.parameters())
        found[name] = lambda y=y, wanted=wanted, g=g: seconds_of(
            lambda: torch.autograd.grad(y, wanted, g, retain_graph=True))
    return found


def optimizer_step(make, variants):
    """A step of the network's optimizer in each of torch's ways to write it."""
    found = {}
    for name, given in variants.items():
        net = UNet(3)
        for p in net.parameters():
            p.grad = torch.randn_like(p)
        try:
            optimizer = make(net.parameters(), **given)
            optimizer.step()
        except (RuntimeError, TypeError, ValueError):  # "fused" is newer than some versions
            continue
        found[name] = lambda optimizer=optimizer: seconds_of(optimizer.step)
    return found


def weight_average():
    slow, fast = (list(UNet(3).parameters()) for _ in range(2))

    def one_by_one():
        for s, f in zip(slow, fast):
            s.lerp_(f, 0.001)

    def together():
        torch._foreach_mul_(slow, 0.999)
        torch._foreach_add_(slow, fast, alpha=0.001)

    return {"lerp": quiet(one_by_one), "foreach": quiet(together)}


def dice_metric(classes, extent):
    """Hard Dice of label maps, as MONAI computes it: from one channel a class."""
    metrics = optional("monai.metrics")
    if not metrics:
        raise LookupError("monai is not installed")
    truth, predicted = (torch.randint(0, classes, (1, 1, extent, extent, extent)) for _ in range(2))

    def score():
        separate = [F.one_hot(labels[:, 0], classes).movedim(-1, 1)
                    for labels in (predicted, truth)]
        return metrics.compute_dice(*separate, include_background=False)

    return {"MONAI compute_dice": quiet(score)}


def augmented(extent, batch, elastic):
    """Rotated and scaled patches of a scan, linear for the scan, nearest for its labels. The
    displacement of torch's patches is interpolated linearly, which costs less than a spline."""
    size = extent * 5 // 3
    scan = torch.randn(1, 1, size, size, size).expand(batch, -1, -1, -1, -1)
    labels = torch.randint(0, 3, (1, 1, size, size, size)).float().expand(batch, -1, -1, -1, -1)
    angles = torch.linspace(0.1, 0.3, batch)
    turns = torch.stack([torch.tensor([[a.cos(), -a.sin(), 0, 0], [a.sin(), a.cos(), 0, 0],
                                       [0, 0, 1, 0]]) * 0.6 for a in angles])
    shifts = 0.02 * torch.randn(batch, 3, 6, 6, 6)

    def patches():
        grid = F.affine_grid(turns, (batch, 1, extent, extent, extent), align_corners=False)
        if elastic:
            bend = F.interpolate(shifts, size=(extent,) * 3, mode="trilinear", align_corners=False)
            grid = grid + bend.movedim(1, -1)
        image = F.grid_sample(scan, grid, mode="bilinear", align_corners=False)
        return image, F.grid_sample(labels, grid, mode="nearest", align_corners=False).byte()

    return {"grid_sample": quiet(patches)}


def connected_components(extent):
    """The pieces of the same mask as segmed's, corners included."""
    import numpy as np
    at = np.arange(extent)
    x, y, z = at[None, None, :], at[None, :, None], at[:, None, None]
    mixed = (x * 73856093 ^ y * 19349663 ^ z * 83492791) & 0xFFFFFFFF
    mask = (np.sin(0.19 * x) + np.sin(0.23 * y + 1) + np.sin(0.17 * z + 2)
            + 0.8 * (mixed * 2654435761 & 0xFFFFFFFF) / 2.0 ** 32 > 1).astype(np.uint8)
    found = {}
    if ndimage := optional("scipy.ndimage"):
        corners = np.ones((3, 3, 3), np.uint8)
        found["scipy label"] = lambda: seconds_of(lambda: ndimage.label(mask, structure=corners))
    if cc3d := optional("cc3d"):
        found["cc3d"] = lambda: seconds_of(
            lambda: cc3d.connected_components(mask, connectivity=26, binary_image=True))
    if not found:
        raise LookupError("neither scipy nor cc3d is installed")
    return found


def sliding_window(extents, patch, overlap):
    inferers = optional("monai.inferers")
    if not inferers:
        raise LookupError("monai is not installed")
    inferer = inferers.SlidingWindowInferer(patch, sw_batch_size=1, overlap=overlap,
                                            mode="gaussian")
    # The faster memory format for one patch is the faster one for all of them.
    name = fastest(unet_inference(3, (patch,) * 3))[0]
    memory = dict(formats())[name.split(",")[0]]
    net = UNet(3).to(memory_format=memory).eval()
    x = torch.randn(1, 1, *extents)
    predict = lambda patches: net(patches.contiguous(memory_format=memory))
    return {f"MONAI, {name}": quiet(lambda: inferer(x, predict).argmax(1))}


def distance_transform(extent):
    ndimage = optional("scipy.ndimage")
    if not ndimage:
        raise LookupError("scipy is not installed")
    import numpy as np
    at = np.arange(extent)
    z, y, x = at[:, None, None], at[None, :, None], at[None, None, :]
    outside = np.ones((extent,) * 3, np.uint8)
    rng = np.random.default_rng(1)
    for _ in range(6):  # some balls
        c = rng.integers(extent // 8, 7 * extent // 8, 3)
        outside[(z - c[0]) ** 2 + (y - c[1]) ** 2 + (x - c[2]) ** 2 < (extent // 10) ** 2] = 0
    return {"scipy": lambda: seconds_of(
        lambda: ndimage.distance_transform_edt(outside, sampling=(2.0, 0.8, 0.8)))}


def resample(extent, to):
    found = {}
    x = torch.randn(1, 1, extent, extent, extent)
    found["torch interpolate"] = quiet(
        lambda: F.interpolate(x, size=(to,) * 3, mode="trilinear", align_corners=False))
    ndimage = optional("scipy.ndimage")
    if ndimage:
        volume = x[0, 0].numpy()
        found["scipy zoom"] = lambda: seconds_of(
            lambda: ndimage.zoom(volume, to / extent, order=1, mode="nearest", grid_mode=True))
    return found


def settings_of(name):
    """{setting: run} of a workload by its name."""
    what, *given = name.removeprefix("BM_").split("/")
    if conv := re.fullmatch("(Conv3dStride2|Conv3d1x1|Conv3d|ConvT3d)(Fwd|BwdData|BwdWeights)", what):
        extents = [int(e) for e in given[1].split("x")]
        return convolution(*conv.groups(), [int(c) for c in given[0].split("x")],
                           extents if len(extents) == 3 else extents * 3)
    number = [int(g) for g in given if g.isdigit()]
    backward = what.endswith("Bwd")
    op = what.removesuffix("FwdBwd").removesuffix("Fwd").removesuffix("Bwd")
    if op == "DiceCe":
        return dice_ce_loss(*number, backward)
    if op == "InstNormLRelu":
        return elementwise(instance_norm, *number, backward)
    if op == "LayerNorm":
        return elementwise(layer_norm, *number, backward)
    if op == "GroupNorm8LRelu":
        return elementwise(group_norm, *number, backward)
    if op == "ConvNormActConv":
        return conv_norm_act_conv(*number, backward)
    if op == "MaxPool2":
        return elementwise(lambda _: (lambda x: F.max_pool3d(x, 2), ()), *number, backward)
    if op in ("UpsampleTrilinear2x", "UpsampleNearest2x"):
        how = ({"mode": "trilinear", "align_corners": False} if "Trilinear" in op
               else {"mode": "nearest"})
        return elementwise(
            lambda _: (lambda x: F.interpolate(x, scale_factor=2, **how), ()), *number, backward)
    if op == "UNetInfer":
        return unet_inference(3, (number[0],) * 3, given[-1] == "bf16")
    if op == "UNetTrainStep":
        return unet_training(3, (number[0],) * 3, 1, given[-1] == "bf16")
    if op == "UNet2DTrain":
        return unet_training(2, (number[0],) * 2, int(given[1].removeprefix("b")))
    if op == "SlidingWindow":
        extents = [int(e) for e in given[0].split("x")]
        return sliding_window(extents, int(given[1].removeprefix("roi")),
                              float(given[2].removeprefix("overlap")))
    if op == "SgdStep":
        return optimizer_step(
            lambda p, **way: torch.optim.SGD(p, lr=1e-2, momentum=0.99, nesterov=True,
                                             weight_decay=3e-5, **way),
            {"stock": {}, "foreach": {"foreach": True}, "fused": {"fused": True}})
    if op == "AdamWStep":
        return optimizer_step(
            lambda p, **way: torch.optim.AdamW(p, lr=1e-3, **way),
            {"stock": {}, "foreach": {"foreach": True}, "fused": {"fused": True}})
    if op == "WeightAverage":
        return weight_average()
    if op == "DiceMetric":
        return dice_metric(*number)
    if op in ("AugmentAffine", "AugmentElastic"):
        return augmented(number[0], int(given[1].removeprefix("b")), op == "AugmentElastic")
    if op == "ConnectedComponents":
        return connected_components(number[0])
    if op == "DistanceTransform":
        return distance_transform(number[0])
    if op == "ResampleCt":
        return resample(number[0], number[0] * 2 // 3)
    raise LookupError("no such workload")


def fastest(settings):
    """The setting with the shortest run after a warm-up."""
    if len(settings) == 1:
        (name, run), = settings.items()
        run()
        return name, run
    taken = {}
    for name, run in settings.items():
        first = run()
        # What a first run costs beside does not matter where it takes seconds.
        taken[name] = first if first > 2 else median_seconds(run)
    best = min(taken, key=taken.get)
    return best, settings[best]


def median_seconds(run):
    """The median of the runs that fit into a tenth of a second, at least one."""
    taken = []
    while sum(taken) < 0.1:
        taken.append(run())
    return statistics.median(taken)


def serve():
    ready = setting = run = None
    for line in sys.stdin:
        name, threads = line.split()
        try:
            if ready != (name, threads):
                run = ready = None  # frees the memory of the last one
                torch.set_num_threads(int(threads))
                torch.manual_seed(0)
                setting, run = fastest(settings_of(name))
                ready = (name, threads)
            print(f"{1e3 * median_seconds(run):.6g} {setting}", flush=True)
        except Exception as why:  # of any version of any library: a workload without a peer
            print(f"- {str(why).strip().splitlines()[0] if str(why).strip() else repr(why)}",
                  flush=True)


def main():
    if "--versions" in sys.argv:
        found = {"torch": torch.__version__}
        for name in ("monai", "scipy", "cc3d"):
            if module := optional(name):
                found[name] = getattr(module, "__version__", "(version unknown)")
        print(json.dumps(found))
    elif "--peak-rss" in sys.argv:
        name, threads = sys.argv[sys.argv.index("--peak-rss") + 1:][:2]
        torch.set_num_threads(int(threads))
        before = peak_memory()
        run = next(iter(settings_of(name).values()))
        run()
        run()
        print(f"{peak_memory() - before:.1f}")
    else:
        serve()


if __name__ == "__main__":
    main()
