"""Our models in PyTorch: timm's backbones under an ML-Decoder head, with random weights.

The parameters are as many as ours, but for the bias of LCNet's last convolution (1,280 more), and
for CLIP's position embedding, stored here for the grid at hand (451,584 more), where ours is
resampled in every forward pass.
"""

import contextlib
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from mlcls_jax.config import Loss

# our backbone → timm's name, and what it is given; others are called as timm calls them
BACKBONES: dict[str, tuple[str, dict[str, Any]]] = {
    "MobileNetV3_large_x1_0": ("mobilenetv3_large_100", {}),
    "PP-LCNet_x0_5": ("lcnet_050", {}),
    "PP-LCNet_x1_0": ("lcnet_100", {}),
    "PP-HGNetV2-B0": ("hgnetv2_b0", {}),
    "PP-HGNetV2-B4": ("hgnetv2_b4", {}),
    "PP-HGNetV2-B6": ("hgnetv2_b6", {}),
    "ResNet50": ("resnet50", {}),
    "ResNet50_vd": ("resnet50d", {}),
    "EfficientNetB0": ("tf_efficientnet_b0", {}),
    "tf_efficientnet_lite0": ("tf_efficientnet_lite0", {}),
    "EfficientNetV2_S": ("tf_efficientnetv2_s", {}),
    "RegNetY_1600MF": ("regnety_016", {}),
    "TResNet_M": ("tresnet_m", {}),
    "ConvNeXt_tiny": ("convnext_tiny", {}),
    # At 224 alone: elsewhere timm's windows stay as they are, unless it is told otherwise.
    "SwinTransformer_tiny_patch4_window7_224": ("swin_tiny_patch4_window7_224", {}),
    "SwinTransformerV2_tiny_patch4_window8_256": ("swinv2_tiny_window8_256", {}),
    "CLIP_vit_base_patch16_448": ("vit_base_patch16_clip_224", {"img_size": 448}),
}
QUERIES = 80
HEAD_DROPOUT = 0.1
LCNET_DROPOUT = 0.2  # on the feature map, as ours; timm's is for the pooled features


def build(
    name: str,
    num_classes: int,
    embed_dim: int = 768,
    hidden_dim: int = 2048,
    num_heads: int = 8,
    weights: str | None = None,
) -> nn.Module:
    """The model `name` of ours, `*_ML`: images float [B, 3, H, W] → logits [B, num_classes].

    It is in training mode, and its weights lie as PyTorch makes them; `channels_last` is for the
    caller to choose. `weights` is a safetensors file of the backbone in timm's names.

    Raises:
      KeyError: timm has no such backbone.
      RuntimeError: the file lacks a part of it.
    """
    backbone_name = name.removesuffix("_ML")
    timm_name, options = BACKBONES.get(backbone_name, (backbone_name, {}))
    backbone = _import_timm().create_model(timm_name, num_classes=0, **options)
    if weights is not None:
        own = backbone.state_dict()
        backbone.load_state_dict({k: v for k, v in load_file(weights).items() if k in own})
    if name.startswith("PP-LCNet"):
        last = nn.Sequential(backbone.conv_head, nn.Hardswish(), nn.Dropout(LCNET_DROPOUT))
        backbone.conv_head = nn.Identity()  # in `last`, before any pooling
        channels = last[0].out_channels
    elif name.startswith("PP-HGNetV2"):
        last, backbone.head.last_conv = backbone.head.last_conv, nn.Identity()
        channels = last[0].out_channels
    else:
        last, channels = nn.Identity(), backbone.num_features
    head = MLDecoder(channels, num_classes, embed_dim, hidden_dim, num_heads)
    return Classifier(backbone, last, head)


def count_parameters(model: nn.Module) -> int:
    """Stored numbers without the statistics of batch normalisation."""
    return sum(parameter.numel() for parameter in model.parameters())


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the trained parameters for an optimizer: vectors and numbers are not decayed."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def asymmetric_loss(logits: Tensor, targets: Tensor, config: Loss) -> Tensor:
    """Ridnik et al. (2021), of logits and targets [B, K]: as `losses.asymmetric_loss`.

    For gamma_pos = 0, and the focusing factor taken as constant in the gradient.
    """
    present, absent = torch.sigmoid(logits), torch.sigmoid(-logits)
    excess = (present.detach() - config.clip).clamp(min=0)
    positive = torch.log(present.clamp(min=1e-8))
    negative = torch.log((absent + config.clip).clamp(max=1)) * excess**config.gamma_neg
    return -(targets * positive + (1 - targets) * negative).sum()


class Classifier(nn.Module):
    """images [B, 3, H, W] → logits [B, K]: backbone, last convolution, head."""

    def __init__(self, backbone: nn.Module, last: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.last, self.head = backbone, last, head

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images that are already normalised."""
        x = self.backbone.forward_features(images)
        if x.ndim == 3:  # a transformer's tokens [B, P + N, C], of which the head sees the patches
            return self.head(x[:, self.backbone.num_prefix_tokens :])
        if getattr(self.backbone, "output_fmt", "NCHW") == "NHWC":
            return self.head(x.flatten(1, 2))
        return self.head(self.last(x).flatten(2).transpose(1, 2))


class MLDecoder(nn.Module):
    """tokens [B, N, C] → logits [B, K]: Ridnik et al. (2021), one layer, no self-attention."""

    def __init__(
        self, in_channels: int, num_classes: int, dim: int, hidden_dim: int, num_heads: int
    ) -> None:
        super().__init__()
        self.num_classes, self.num_heads = num_classes, num_heads
        queries = min(QUERIES, num_classes)
        group = -(-num_classes // queries)
        self.input_proj = nn.Linear(in_channels, dim)
        drawn = nn.init.xavier_uniform_(torch.empty(queries, dim))
        self.query_embed = nn.Parameter(drawn, requires_grad=False)  # the original freezes them
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(dim, dim) for _ in range(4)
        )
        # As nn.MultiheadAttention does, which keeps the three in one matrix.
        joined = nn.init.xavier_uniform_(torch.empty(3 * dim, dim)).chunk(3)
        for linear, drawn in zip((self.q_proj, self.k_proj, self.v_proj), joined, strict=True):
            linear.weight = nn.Parameter(drawn.clone())
        for linear in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            nn.init.zeros_(linear.bias)
        self.linear1 = nn.Linear(dim, hidden_dim)
        self.linear2 = nn.Linear(hidden_dim, dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.dropout = nn.Dropout(HEAD_DROPOUT)
        drawn = nn.init.xavier_normal_(torch.empty(queries, dim, group))
        self.group_kernel = nn.Parameter(drawn)
        self.group_bias = nn.Parameter(torch.zeros(queries * group))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits, one group of labels a query."""
        batch = tokens.shape[0]
        memory = functional.relu(self.input_proj(tokens))
        x = self.query_embed[None]
        if self.training:  # dropout differs by image; without it they share the first steps
            x = x.expand(batch, -1, -1)
        x = self.norm1(x + self.dropout(x))
        x = self.norm2(x + self.dropout(self._attend(x, memory)))
        hidden = self.dropout(functional.relu(self.linear1(x)))
        x = self.norm3(x + self.dropout(self.linear2(hidden)))
        logits = torch.matmul(x.transpose(0, 1), self.group_kernel)  # [Q, B, g]
        logits = logits.transpose(0, 1).flatten(1) + self.group_bias
        return logits[:, : self.num_classes]

    def _attend(self, x: Tensor, memory: Tensor) -> Tensor:
        q = self.q_proj(x).expand(memory.shape[0], -1, -1)
        q, k, v = (
            y.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B, heads, tokens, size]
            for y in (q, self.k_proj(memory), self.v_proj(memory))
        )
        rate = HEAD_DROPOUT if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(q, k, v, dropout_p=rate)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


def _import_timm() -> Any:
    """timm, also where torchvision cannot load its compiled operators."""
    try:
        import timm
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        # torchvision's wheel for another build of PyTorch: its operators are not registered, and it
        # fails when it describes them. timm uses none of them, so it is enough that they exist.
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            with contextlib.suppress(RuntimeError):  # already there
                library.define(f"{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor")
        _kept.append(library)  # what is defined goes when it does
        import timm
    return timm


_kept: list[Any] = []
