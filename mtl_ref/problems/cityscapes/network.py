"""The networks of the dense tasks: a dilated ResNet of stride 8, and a pyramid-pooling head.

Sources: Yu, Koltun and Funkhouser, CVPR 2017 (dilated residual networks); Zhao et al., CVPR 2017 (pyramid
pooling); Sener and Koltun, NeurIPS 2018, who put one head per task on one encoder.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 8  # of every encoder: a representation has an eighth of the input's height and width


class PyramidPooling(nn.Module):
    """The representation beside its own averages over 1, 2×2, 3×3 and 6×6 regions.

    (N, channels, h, w) to (N, channels + 4·inner, h, w).
    """

    def __init__(self, channels: int, inner: int, pools: tuple[int, ...] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [nn.Sequential(nn.AdaptiveAvgPool2d(pool), *convolution(channels, inner, 1)) for pool in pools]
        )

    def forward(self, z: Tensor) -> Tensor:
        pooled = [
            F.interpolate(branch(z), z.shape[2:], mode="bilinear", align_corners=False) for branch in self.branches
        ]
        return torch.cat([z, *pooled], dim=1)


def pyramid_head(channels: int, inner: int, outputs: int) -> nn.Module:
    """One task's head: (N, channels, H/8, W/8) to (N, outputs, H, W)."""
    return nn.Sequential(
        PyramidPooling(channels, inner),
        *convolution(channels + 4 * inner, inner, 3),
        nn.Conv2d(inner, outputs, 1),
        nn.Upsample(scale_factor=STRIDE, mode="bilinear", align_corners=False),
    )


class Residual(nn.Module):
    """x + f(x) with two 3×3 convolutions; x goes through a 1×1 one where its shape must change."""

    def __init__(self, before: int, after: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.f = nn.Sequential(
            *convolution(before, after, 3, stride, dilation), *convolution(after, after, 3, 1, dilation)[:-1]
        )
        same = before == after and stride == 1
        self.skip = nn.Identity() if same else nn.Sequential(*convolution(before, after, 1, stride)[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.skip(x) + self.f(x))


def convolution(before: int, after: int, kernel: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    """Convolution, batch normalisation, ReLU."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(before, after, kernel, stride, padding, dilation, bias=False)
    return [conv, nn.BatchNorm2d(after), nn.ReLU()]


def small() -> tuple[nn.Module, int, int]:
    """A dilated ResNet of five convolutional stages with up to 64 channels, and heads of 32."""
    encoder = nn.Sequential(
        *convolution(3, 16, 3, stride=2),
        Residual(16, 32, stride=2),
        Residual(32, 64, stride=2),
        Residual(64, 64, dilation=2),
        Residual(64, 64, dilation=4),
    )
    return encoder, 64, 32


def resnet50(imagenet: bool = False) -> tuple[nn.Module, int, int]:
    """torchvision's ResNet-50 with dilation in place of its last two strides, 2048 channels; heads of 512."""
    import torchvision

    weights = torchvision.models.ResNet50_Weights.IMAGENET1K_V1 if imagenet else None
    net = torchvision.models.resnet50(weights=weights, replace_stride_with_dilation=[False, True, True])
    stem = [net.conv1, net.bn1, net.relu, net.maxpool]
    return nn.Sequential(*stem, net.layer1, net.layer2, net.layer3, net.layer4), 2048, 512


NETWORKS: dict[str, Callable[[], tuple[nn.Module, int, int]]] = {
    "small": small,
    "resnet50": resnet50,
    "resnet50-imagenet": lambda: resnet50(imagenet=True),
}
