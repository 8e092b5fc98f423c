"""Encoders of the tests' small snapshot: the operators and attribute names of the published ones, in plain torch, at any dimensions."""

import torch
import torch.nn.functional as F
from torch import nn


class MlpProjector(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.layers = nn.Linear(cfg["input_dim"], cfg["n_embed"])

    def forward(self, x):
        return self.layers(x)


# CLIP, whose blocks call the `forward` of their parts, so that hooks on those parts never fire


class CLIPVisionEmbeddings(nn.Module):
    def __init__(self, width, image_px, patch_px, channels):
        super().__init__()
        count = (image_px // patch_px) ** 2 + 1
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.patch_embedding = nn.Conv2d(channels, width, patch_px, stride=patch_px, bias=False)
        self.position_embedding = nn.Embedding(count, width)
        self.register_buffer("position_ids", torch.arange(count).expand((1, -1)))

    def forward(self, pixel_values, patch_embeds):
        if patch_embeds is None:
            patch_embeds = self.patch_embedding(pixel_values)
        tokens = patch_embeds.flatten(2).transpose(1, 2)
        embedded = torch.cat([self.class_embedding.expand(pixel_values.shape[0], 1, -1), tokens], dim=1)
        return embedded + _resized_positions(self.position_embedding(self.position_ids), embedded.size(1))


def _resized_positions(table, count):
    rows = table.squeeze(0)
    first, rest = rows[:1], rows[1:]
    old, new, width = int(rest.shape[0] ** 0.5), int(count**0.5), table.size(-1)
    if old == new:
        return table
    trained = rest.view(1, old, old, width).permute(0, 3, 1, 2).contiguous()
    trained = trained.to(torch.float32)  # two names, since each keeps its picture alive to the end
    picture = F.interpolate(trained, size=(new, new), mode="bicubic", antialias=True, align_corners=False).to(table.dtype)
    picture = picture.permute(0, 2, 3, 1).view(new * new, width)
    return torch.cat([first, picture], dim=0).view(1, new * new + 1, width)


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


class NoTPFeedForward(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x):
        return self.fc2(quick_gelu(self.fc1(x)))


class NoTPAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv_proj, self.out_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        images, tokens, width = x.shape
        joined = self.qkv_proj(x).view(images, tokens, 3, self.heads, width // self.heads)
        query, key, value = (part.squeeze(2).permute(0, 2, 1, 3) for part in torch.split(joined, 1, dim=2))
        output = F.scaled_dot_product_attention(query, key, value, attn_mask=None)
        output = output.permute(0, 2, 1, 3).reshape(images, tokens, -1)
        return self.out_proj(output)


class NoTPTransformerBlock(nn.Module):
    def __init__(self, width, heads, inner):
        super().__init__()
        self.self_attn, self.mlp = NoTPAttention(width, heads), NoTPFeedForward(width, inner)
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x):
        attended = self.self_attn.forward(self.layer_norm1(x))
        h = x + attended
        return h + self.mlp.forward(self.layer_norm2(h))


class NoTPTransformer(nn.Module):
    def __init__(self, layers, *sizes):
        super().__init__()
        self.layers = nn.ModuleList(NoTPTransformerBlock(*sizes) for _ in range(layers))

    def forward(self, hidden_states):
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        return hidden_states


class VitModel(nn.Module):
    def __init__(self, clip):
        super().__init__()
        self.embeddings = CLIPVisionEmbeddings(clip["width"], clip["image_px"], clip["patch_px"], clip["channels"])
        self.transformer = NoTPTransformer(clip["layers"], clip["width"], clip["heads"], clip["mlp_width"])
        self.pre_layrnorm = nn.LayerNorm(clip["width"])

    def forward(self, x, patch_embeds):
        x = self.embeddings(x, patch_embeds)
        hidden_states = self.pre_layrnorm(x)
        return self.transformer(hidden_states)


# SAM


class PatchEmbed(nn.Module):
    def __init__(self, channels, width, patch_px):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch_px, stride=patch_px)

    def forward(self, x):
        x = self.proj(x)
        return x.permute(0, 2, 3, 1)


class LayerNorm2d(nn.Module):
    def __init__(self, channels, eps=1e-6):
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels)), eps

    def forward(self, x):
        u = x.mean(1, keepdim=True)
        s = (x - u).pow(2).mean(1, keepdim=True)
        x = (x - u) / torch.sqrt(s + self.eps)
        x = self.weight[:, None, None] * x + self.bias[:, None, None]
        return x


class MLPBlock(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.lin1, self.lin2, self.act = nn.Linear(width, inner), nn.Linear(inner, width), nn.GELU()

    def forward(self, x):
        return self.lin2(self.act(self.lin1(x)))


class Attention(nn.Module):
    def __init__(self, width, heads, side):
        super().__init__()
        self.num_heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, width // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, width // heads))

    def forward(self, x):
        batch, height, width, _ = x.shape
        heads, count = self.num_heads, height * width
        qkv = self.qkv(x).reshape(batch, count, 3, heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.reshape(3, batch * heads, count, -1).unbind(0)
        rel_h, rel_w = _decomposed(q, self.rel_pos_h, self.rel_pos_w, height, width)
        q, k, v = (part.view(batch, heads, count, -1) for part in (q, k, v))
        rel_h = rel_h.view(batch, heads, rel_h.size(1), rel_h.size(2), rel_h.size(3))
        rel_w = rel_w.view(batch, heads, rel_w.size(1), rel_w.size(2), rel_w.size(3))
        bias = (rel_h + rel_w).view(batch, heads, rel_h.size(2), rel_h.size(3) * rel_w.size(4))
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        x = x.view(batch, heads, height, width, -1).permute(0, 2, 3, 1, 4).reshape(batch, height, width, -1)
        x = self.proj(x)
        return x


def _relative(size, table):
    rows = 2 * size - 1
    if table.shape[0] != rows:
        dtype = table.dtype
        table = table.to(torch.float32)
        table = F.interpolate(table.reshape(1, table.shape[0], -1).permute(0, 2, 1), size=rows, mode="linear").to(dtype)
        table = table.reshape(-1, rows).permute(1, 0)
    queries = torch.arange(size, device=table.device)[:, None] * 1.0
    keys = torch.arange(size, device=table.device)[None, :] * 1.0
    distance = (queries - keys) + (size - 1) * 1.0
    return table[distance.long()]


def _decomposed(q, table_h, table_w, height, width):
    tall, wide = _relative(height, table_h), _relative(width, table_w)
    batch, _, depth = q.shape
    square = q.reshape(batch, height, width, depth)
    rel_h = torch.einsum("bhwc,hkc->bhwk", square, tall)
    rel_w = torch.einsum("bhwc,wkc->bhwk", square, wide)
    rel_h, rel_w = rel_h.unsqueeze(-1), rel_w.unsqueeze(-2)
    rel_h = rel_h.reshape(batch, height * width, height, 1)
    rel_w = rel_w.reshape(batch, height * width, 1, width)
    return rel_h, rel_w


class Block(nn.Module):
    def __init__(self, sam, window):
        super().__init__()
        width, side = sam["width"], window or sam["image_px"] // sam["patch_px"]
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = Attention(width, sam["heads"], side), MLPBlock(width, sam["mlp_width"])
        self.window = window

    def forward(self, x):
        shortcut = x
        x = self.norm1(x)
        if self.window:
            height, width = x.shape[1], x.shape[2]
            x, padded = _windows(x, self.window)
        x = self.attn(x)
        if self.window:
            x = _picture(x, self.window, padded, (height, width))
        x = shortcut + x
        x = x + self.mlp(self.norm2(x))
        return x


def _windows(x, window):
    batch, height, width, depth = x.shape
    down, right = -height % window, -width % window
    if down or right:
        x = F.pad(x, (0, 0, 0, right, 0, down))
    tall, wide = height + down, width + right
    x = x.view(batch, tall // window, window, wide // window, window, depth)
    windows = x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, window, window, depth)
    return windows, (tall, wide)


def _picture(windows, window, padded, size):
    (tall, wide), (height, width) = padded, size
    batch = windows.shape[0] // (tall * wide // window // window)
    x = windows.view(batch, tall // window, wide // window, window, window, -1)
    x = x.permute(0, 1, 3, 2, 4, 5).contiguous().view(batch, tall, wide, -1)
    if tall > height or wide > width:
        x = x[:, :height, :width, :].contiguous()
    return x


class ImageEncoderViT(nn.Module):
    def __init__(self, sam):
        super().__init__()
        side, width, neck = sam["image_px"] // sam["patch_px"], sam["width"], sam["neck_width"]
        first, second = sam["downsample_widths"]
        self.patch_embed = PatchEmbed(sam["channels"], width, sam["patch_px"])
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, width))
        windows = [0 if layer in sam["global_layers"] else sam["window"] for layer in range(sam["layers"])]
        self.blocks = nn.ModuleList(Block(sam, window) for window in windows)
        self.neck = nn.Sequential(
            nn.Conv2d(width, neck, 1, bias=False),
            LayerNorm2d(neck),
            nn.Conv2d(neck, neck, 3, padding=1, bias=False),
            LayerNorm2d(neck),
        )
        self.net_2 = nn.Conv2d(neck, first, 3, stride=2, padding=1, bias=False)
        self.net_3 = nn.Conv2d(first, second, 3, stride=2, padding=1, bias=False)

    def forward(self, x):
        x = self.patch_embed(x)
        x = x + self._positions(x.size(1))
        for block in self.blocks:
            x = block(x)
        x = self.neck(x.permute(0, 3, 1, 2))
        x2 = self.net_2(x)
        x3 = self.net_3(x2.clone())
        return x3

    def _positions(self, side):
        table = self.pos_embed
        if table.size(1) == side:
            return table
        trained = table.permute(0, 3, 1, 2).to(torch.float32)
        picture = F.interpolate(trained, size=(side, side), mode="bicubic", antialias=True, align_corners=False).to(table.dtype)
        return picture.permute(0, 2, 3, 1)


def build_sam_vit_b(towers):
    return ImageEncoderViT(towers["sam"])


def build_clip_l(towers):
    return VitModel(towers["clip"])
