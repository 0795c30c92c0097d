"""The encoder: ResNet18 up to its third stage, with taps at strides 4, 8 and 16.

Parameter names are those of torchvision's resnet18, so that its weights load where the width is 64.
He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

# Added to a picture's spread (0..1 scale), so that the noise of an empty picture is not blown up.
LEAST_CONTRAST = 0.02
# Channels of the first layer; ImageNet's resnet18 has 64.
LEAST_WIDTH, MOST_WIDTH = 8, 64


def normalise(pictures: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) of 0..1 to zero mean and unit spread, each by its own light and contrast.

    The encoder then sees structure whatever the exposure; what a brightness meter sees is the head's light map.
    """
    mean, spread = light_of(pictures)
    return (pictures - mean) / spread


def light_of(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread of each picture (N, 3, H, W), both (N, 1, 1, 1)."""
    mean = whole_mean(pictures)
    variance = whole_mean((pictures - mean) ** 2)
    return mean, variance.sqrt() + LEAST_CONTRAST


def whole_mean(pictures: Tensor) -> Tensor:
    """Mean of each picture (N, C, H, W): (N, 1, 1, 1).

    One axis after the other: ONNX Runtime adds the numbers of a mean in a row, and in float32 the sum of a
    whole picture loses three digits. Torch, ONNX Runtime and TensorRT would not see the same picture.
    """
    return pictures.mean(3, keepdim=True).mean(2, keepdim=True).mean(1, keepdim=True)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C, H / stride, W / stride)."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(y + shortcut)


class Encoder(nn.Module):
    """Pictures to features at three strides.

    Args:
        width: Channels of the first stage; the next two have twice and four times as many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.channels = (width, 2 * width, 4 * width)
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(width, width, 1), BasicBlock(width, width, 1))
        self.layer2 = nn.Sequential(BasicBlock(width, 2 * width, 2), BasicBlock(2 * width, 2 * width, 1))
        self.layer3 = nn.Sequential(BasicBlock(2 * width, 4 * width, 2), BasicBlock(4 * width, 4 * width, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of normalised pictures.

        Args:
            x: (N, 3, H, W), H and W multiples of 16.

        Returns:
            Features at strides 4, 8 and 16: (N, C, H/4, W/4), (N, 2C, H/8, W/8), (N, 4C, H/16, W/16).
        """
        x = self.maxpool(functional.relu(self.bn1(self.conv1(x))))
        stride4 = self.layer1(x)
        stride8 = self.layer2(stride4)
        return stride4, stride8, self.layer3(stride8)

    def multiply_adds(self, side: int, *, frozen: bool = False) -> float:
        """Multiply-accumulates of one training pass over one picture: forward, and twice that backward.

        Args:
            side: Side of the picture.
            frozen: Whether the stem and the first stage are frozen, so that nothing flows back through them.
        """
        width, area = self.channels[0], side**2
        early = area / 4 * 147 * width + area / 16 * 4 * 9 * width**2
        # Stage 2: a convolution of 2 width^2 channels, three of 4, and the shortcut's. Stage 3 has a quarter of
        # the places and twice the channels, so it costs the same.
        stage = area / 64 * (9 * 2 + 3 * 9 * 4 + 2) * width**2
        return (1 if frozen else 3) * early + 3 * 2 * stage
