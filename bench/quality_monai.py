#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains MONAI's residual U-Net (Kerfoot et al. 2019) for some minutes and evaluates it.

  quality_monai.py --data FOLDER --held-out FILE --minutes M --out FILE [--widths 32,64,128,256]
                   [--rate 3e-3] [--workers N] [--threads N] [--seed S]

FOLDER has imagesTr and labelsTr as the Medical Segmentation Decathlon does, FILE of --held-out is a
JSON list of the cases to evaluate on. Patches around voxels of every class, rotated, scaled, with
noise and other intensities by chance, Dice + cross-entropy, AdamW with a rate that falls along a
cosine, whole volumes through the sliding window. Data sets stay in memory, tensors are channels
last, and malloc keeps its memory. The minutes are those of training alone. Writes {"dice", "steps",
"minutes", "parameters"}.
"""
import argparse
import json
import math
import pathlib
import statistics
import sys
import time

import peer_torch  # noqa: F401  starts this process again with malloc's tunables
import torch
from monai import transforms as t
from monai.data import CacheDataset, DataLoader
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.utils import set_determinism

PATCH = (32, 48, 32)
KEYS = ("image", "label")


def cases_of(folder, held_out):
    """The cases to train on and those to evaluate on."""
    cases = [{"image": str(path), "label": str(folder / "labelsTr" / path.name),
              "id": path.name.removesuffix(".nii.gz")}
             for path in sorted((folder / "imagesTr").glob("*.nii.gz"))]
    aside = [c for c in cases if c["id"] in held_out]
    if len(aside) != len(held_out):
        sys.exit(f"{folder / 'imagesTr'} does not have every case of the list of --held-out")
    return [c for c in cases if c["id"] not in held_out], aside


def classes_of(volumes):
    """One more than the largest label."""
    return 1 + max(int(case["label"].max()) for case in volumes)


def read_once():
    """What is done once to every volume."""
    return [t.LoadImaged(KEYS, image_only=True), t.EnsureChannelFirstd(KEYS),
            t.NormalizeIntensityd("image")]


def drawn_anew(classes):
    """What is drawn anew for every patch."""
    return [
        t.SpatialPadd(KEYS, PATCH),
        t.RandCropByLabelClassesd(KEYS, "label", PATCH, num_classes=classes),
        t.RandAffined(KEYS, prob=0.6, rotate_range=(math.radians(20),) * 3,
                      scale_range=(0.25,) * 3, mode=("bilinear", "nearest"),
                      padding_mode="zeros"),
        t.RandGaussianNoised("image", prob=0.15, std=0.1),
        t.RandScaleIntensityd("image", factors=0.25, prob=0.15),
        t.RandAdjustContrastd("image", gamma=(0.7, 1.5), prob=0.3),
    ]


def train(network, loader, options):
    """Trains until the minutes are over; gives the steps and the minutes."""
    criterion = DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.rate, weight_decay=1e-5)
    network.train()
    steps, start, budget = 0, time.perf_counter(), 60 * options.minutes
    spent = said = 0.0
    while True:
        for batch in loader:
            image = batch["image"].as_tensor().to(memory_format=torch.channels_last_3d)
            for group in optimizer.param_groups:
                group["lr"] = options.rate * 0.5 * (1 + math.cos(math.pi * spent / budget))
            optimizer.zero_grad(set_to_none=True)
            loss = criterion(network(image), batch["label"].as_tensor())
            loss.backward()
            optimizer.step()
            steps += 1
            spent = time.perf_counter() - start
            if spent - said >= 30:
                said = spent
                print(f"MONAI: {spent / 60:.1f} min, step {steps}, loss {loss.item():.3f}",
                      file=sys.stderr, flush=True)
            if spent >= budget:
                return steps, spent / 60


def dice_of(predicted, truth, classes):
    """Mean over the classes; one that neither volume has is left out."""
    scores = []
    for c in range(1, classes):
        a, b = predicted == c, truth == c
        total = int(a.sum()) + int(b.sum())
        if total > 0:
            scores.append(2 * int((a & b).sum()) / total)
    return statistics.fmean(scores)


def evaluate(network, volumes, classes):
    network.eval()
    scores = []
    with torch.inference_mode():
        for case in volumes:
            logits = sliding_window_inference(case["image"].as_tensor()[None], PATCH, 4, network,
                                              overlap=0.5, mode="gaussian")
            scores.append(dice_of(logits[0].argmax(0), case["label"].as_tensor()[0], classes))
    return statistics.fmean(scores)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--held-out", required=True, type=pathlib.Path)
    parser.add_argument("--minutes", required=True, type=float)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--widths", default="32,64,128,256", help="channels of the levels")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    set_determinism(seed=options.seed)
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(options.threads)
    kept, aside = cases_of(options.data, set(json.loads(options.held_out.read_text())))
    volumes = CacheDataset(aside, t.Compose(read_once()), progress=False)
    classes = classes_of(volumes)
    patches = CacheDataset(kept, t.Compose(read_once() + drawn_anew(classes)), progress=False)
    loader = DataLoader(patches, batch_size=2, shuffle=True, drop_last=True,
                        num_workers=options.workers, persistent_workers=options.workers > 0)
    widths = [int(w) for w in options.widths.split(",")]
    network = UNet(3, 1, classes, channels=widths, strides=(2,) * (len(widths) - 1),
                   num_res_units=2).to(memory_format=torch.channels_last_3d)
    steps, minutes = train(network, loader, options)
    found = {"dice": evaluate(network, volumes, classes), "steps": steps, "minutes": minutes,
             "parameters": sum(p.numel() for p in network.parameters())}
    options.out.write_text(json.dumps(found) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
