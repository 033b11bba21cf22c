# SPDX-License-Identifier: Apache-2.0
"""The network of the benchmarks in PyTorch."""
import torch
import torch.nn as nn


def block(dim, channels_in, channels_out, stride=1):
    conv, norm = (nn.Conv3d, nn.InstanceNorm3d) if dim == 3 else (nn.Conv2d, nn.InstanceNorm2d)
    # No bias: the normalisation would take it away again.
    return nn.Sequential(
        conv(channels_in, channels_out, 3, stride, 1, bias=False),
        norm(channels_out, affine=True),
        nn.LeakyReLU(0.01, inplace=True),
        conv(channels_out, channels_out, 3, 1, 1, bias=False),
        norm(channels_out, affine=True),
        nn.LeakyReLU(0.01, inplace=True),
    )


class UNet(nn.Module):
    """Two convolutions a stage, strided down, transposed up."""

    def __init__(self, dim, widths=(32, 64, 128, 256), classes=3):
        super().__init__()
        up, head = (nn.ConvTranspose3d, nn.Conv3d) if dim == 3 else (nn.ConvTranspose2d, nn.Conv2d)
        pairs = list(zip(widths[:-1], widths[1:]))
        self.down = nn.ModuleList(
            [block(dim, 1, widths[0])] + [block(dim, a, b, 2) for a, b in pairs])
        self.up = nn.ModuleList([up(b, a, 2, 2) for a, b in reversed(pairs)])
        self.back = nn.ModuleList([block(dim, 2 * a, a) for a, _ in reversed(pairs)])
        self.head = head(widths[0], classes, 1)

    def forward(self, x):
        levels = []
        for stage in self.down:
            x = stage(x)
            levels.append(x)
        levels.pop()
        for up, stage in zip(self.up, self.back):
            x = stage(torch.cat((up(x), levels.pop()), 1))
        return self.head(x)
