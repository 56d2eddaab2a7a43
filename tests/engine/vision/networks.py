"""Small networks with known properties, for tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Separable(nn.Module):
    """a(x_left) + b(x_right): the two halves of an image do not depend on each other."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.half = width // 2
        size = channels * height * self.half
        self.left = nn.Sequential(nn.Flatten(), nn.Linear(size, 7), nn.Tanh(), nn.Linear(7, 1))
        self.right = nn.Sequential(nn.Flatten(), nn.Linear(size, 7), nn.Tanh(), nn.Linear(7, 1))

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.left(x[..., : self.half]), self.right(x[..., -self.half :])

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.parts(x)
        return a + b


class Product(Separable):
    """a(x_left) b(x_right)."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.parts(x)
        return a * b


class SumOfProducts(nn.Module):
    """sum over k of a_k(x_left) b_k(x_right)."""

    def __init__(self, count: int, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.products = nn.ModuleList(Product(channels, height, width) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([product(x) for product in self.products]).sum(0)


class Zoo(nn.Module):
    """Operations that users write: in place, functional, methods, shapes, concatenation, group normalization."""

    def __init__(self, channels: int = 2, outputs: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.bn = nn.BatchNorm2d(8)
        self.act = nn.LeakyReLU(0.1, inplace=True)
        self.silu, self.gelu, self.softplus = nn.SiLU(), nn.GELU(), nn.Softplus(2.0)
        self.gate = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1))
        self.fc = nn.Linear(16, outputs)
        self.scale = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        x = self.silu(self.norm(self.conv(x)))
        skip = x
        x = self.bn(self.depthwise(x))
        x += skip
        x = functional.relu(x)
        x = x * torch.sigmoid(self.gate(x)) * self.scale
        x = self.act(x - 0.1) / 2
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        x = torch.cat([self.gelu(x), self.softplus(x).tanh()], dim=1)
        x = functional.avg_pool2d(x, 2)
        return self.fc(x.mean(dim=(2, 3)).view(x.size(0), -1))


class ViT(nn.Module):
    """Tokens of patches, attention by nn.MultiheadAttention or scaled_dot_product_attention, a class token."""

    def __init__(self, own_attention: bool, outputs: int = 3, width: int = 8) -> None:
        super().__init__()
        self.stem, self.token = nn.Conv2d(2, width, 4, 4), nn.Parameter(0.1 * torch.randn(1, 1, width))
        self.place = nn.Parameter(0.1 * torch.randn(1, 9, width))
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True) if own_attention else None
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        y = self.first(x)
        if self.attention is None:
            q, k, v = (t.reshape(*t.shape[:2], 2, -1).transpose(1, 2) for t in self.qkv(y).chunk(3, 2))
            y = self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        else:
            y = self.attention(y, y, y, need_weights=False)[0]
        x = x + y
        return self.head((x + self.mlp(self.second(x)))[:, 0])


def mine(channels: int, outputs: int) -> nn.Module:
    """What --model module:function names."""
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, outputs),
    )
