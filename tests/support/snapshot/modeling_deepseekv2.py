"""The decoder of the tests' small snapshot: the operators and attribute names of the published one (whose attention, mask and cache are
those of transformers 4.46.3) in plain torch."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from .configuration_deepseek_v2 import DeepseekV2Config


class DynamicCache:
    """Takes the first keys and values as they are, and concatenates what comes later, as that of transformers 4.46.3 does."""

    def __init__(self):
        self.key_cache, self.value_cache = [], []

    def update(self, keys, values, layer):
        if len(self.key_cache) <= layer:
            self.key_cache.append(keys)
            self.value_cache.append(values)
        else:
            self.key_cache[layer] = torch.cat([self.key_cache[layer], keys], dim=-2)
            self.value_cache[layer] = torch.cat([self.value_cache[layer], values], dim=-2)
        return self.key_cache[layer], self.value_cache[layer]

    def get_seq_length(self):
        return self.key_cache[0].shape[-2] if self.key_cache else 0


def _causal_mask(attention_mask, tokens, dtype):
    lowest, causal = torch.finfo(dtype).min, None
    if tokens > 1:
        causal = _triangle(tokens, lowest, attention_mask.device, dtype)
    padding = _padding_mask(attention_mask, tokens, dtype)
    if causal is None:
        return padding
    causal = causal[None, None, :, :].expand(attention_mask.shape[0], 1, tokens, tokens)
    return causal.masked_fill(padding.bool(), lowest)


def _triangle(tokens, lowest, device, dtype):
    triangle = torch.full((tokens, tokens), lowest, device=device)  # in torch's default precision, not in the model's
    positions = torch.arange(tokens, device=device)
    triangle.masked_fill_(positions < (positions + 1).view(tokens, 1), 0)
    triangle = triangle.to(dtype)
    return triangle


def _padding_mask(attention_mask, tokens, dtype):
    batch, context = attention_mask.shape
    kept = attention_mask[:, None, None, :].expand(batch, 1, tokens, context).to(dtype)
    hidden = 1.0 - kept
    return hidden.masked_fill(hidden.to(torch.bool), torch.finfo(dtype).min)


class DeepseekV2RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, hidden_states):
        dtype = hidden_states.dtype
        hidden_states = hidden_states.to(torch.float32)
        variance = hidden_states.pow(2).mean(-1, keepdim=True)
        hidden_states = hidden_states * torch.rsqrt(variance + self.eps)
        return self.weight * hidden_states.to(dtype)


class LlamaRotaryEmbedding(nn.Module):
    def __init__(self, width, base):
        super().__init__()
        self.attention_scaling = 1.0
        powers = torch.arange(0, width, 2, dtype=torch.int64).float() / width
        self.register_buffer("inv_freq", 1.0 / base**powers, persistent=False)

    def forward(self, x, position_ids):
        frequencies = self.inv_freq[None, :, None].float().expand(position_ids.shape[0], -1, 1)
        positions = position_ids[:, None, :].float()
        with torch.autocast(device_type=x.device.type, enabled=False):
            freqs = (frequencies.float() @ positions.float()).transpose(1, 2)
            emb = torch.cat((freqs, freqs), dim=-1)
            cos = emb.cos()
            sin = emb.sin()
        cos = cos * self.attention_scaling
        sin = sin * self.attention_scaling
        return cos.to(dtype=x.dtype), sin.to(dtype=x.dtype)


def _rotated(x, cos, sin):
    half = x.shape[-1] // 2
    return (x * cos) + (torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin)


class LlamaAttention(nn.Module):
    def __init__(self, config, layer_idx):
        super().__init__()
        width, self.heads, self.layer_idx = config.hidden_size, config.num_attention_heads, layer_idx
        self.head_dim = width // self.heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.rotary_emb = LlamaRotaryEmbedding(self.head_dim, 10000.0)

    def forward(self, hidden_states, attention_mask, position_ids, past_key_value):
        batch, tokens, _ = hidden_states.size()
        query = self.q_proj(hidden_states)
        key = self.k_proj(hidden_states)
        value = self.v_proj(hidden_states)
        query = query.view(batch, tokens, self.heads, self.head_dim).transpose(1, 2)
        key = key.view(batch, tokens, self.heads, self.head_dim).transpose(1, 2)
        value = value.view(batch, tokens, self.heads, self.head_dim).transpose(1, 2)
        cos, sin = self.rotary_emb(value, position_ids)
        query, key = self._rotate_both(query, key, cos, sin)
        if past_key_value is not None:
            key, value = past_key_value.update(key, value, self.layer_idx)
        weights = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(self.head_dim)
        weights = weights + attention_mask[:, :, :, : key.shape[-2]]
        weights = F.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
        output = torch.matmul(weights, value)
        output = output.transpose(1, 2).contiguous()
        output = output.reshape(batch, tokens, -1)
        output = self.o_proj(output)
        return output

    def _rotate_both(self, query, key, cos, sin):
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        rotated_query = _rotated(query, cos, sin)
        rotated_key = _rotated(key, cos, sin)
        return rotated_query, rotated_key


class LlamaFlashAttention2(LlamaAttention):
    """Where the published one calls flash-attn, this one calls torch's fused attention."""

    def forward(self, hidden_states, attention_mask, position_ids, past_key_value):
        assert attention_mask is None
        shape = (*hidden_states.shape[:2], self.heads, self.head_dim)
        query, key, value = (of(hidden_states).view(shape).transpose(1, 2) for of in (self.q_proj, self.k_proj, self.v_proj))
        query, key = self._rotate_both(query, key, *self.rotary_emb(value, position_ids))
        key, value = past_key_value.update(key, value, self.layer_idx)
        output = F.scaled_dot_product_attention(query, key, value, is_causal=shape[1] > 1)
        return self.o_proj(output.transpose(1, 2).reshape(hidden_states.shape))


ATTENTION_CLASSES = {"eager": LlamaAttention, "flash_attention_2": LlamaFlashAttention2}


class DeepseekV2MLP(nn.Module):
    def __init__(self, config, inner):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, inner, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, inner, bias=False)
        self.down_proj = nn.Linear(inner, config.hidden_size, bias=False)
        self.act_fn = nn.SiLU()

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class MoEGate(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.top_k = config.num_experts_per_tok
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, hidden_states):
        hidden_states = hidden_states.view(-1, hidden_states.shape[-1])
        logits = F.linear(hidden_states.type(torch.float32), self.weight.type(torch.float32), None)
        scores = logits.softmax(dim=-1, dtype=torch.float32)
        topk_weight, topk_idx = torch.topk(scores, k=self.top_k, dim=-1, sorted=False)
        topk_weight = topk_weight * 1.0
        return topk_idx, topk_weight, None


class DeepseekV2MoE(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.experts = nn.ModuleList(DeepseekV2MLP(config, config.moe_intermediate_size) for _ in range(config.n_routed_experts))
        self.gate = MoEGate(config)
        self.shared_experts = DeepseekV2MLP(config, config.moe_intermediate_size * config.n_shared_experts)

    def forward(self, hidden_states):
        identity, shape = hidden_states, hidden_states.shape
        topk_idx, topk_weight, _ = self.gate(hidden_states)
        hidden_states = hidden_states.view(-1, shape[-1])
        y = self.moe_infer(hidden_states, topk_idx, topk_weight).view(*shape)
        y = y + self.shared_experts(identity)
        return y

    def moe_infer(self, x, topk_ids, topk_weight):
        cnts = topk_ids.new_zeros((topk_ids.shape[0], len(self.experts)))
        cnts.scatter_(1, topk_ids, 1)
        per_expert = cnts.sum(dim=0)
        order = topk_ids.view(-1).argsort()
        rows = x[order // topk_ids.shape[1]]
        per_expert = per_expert.cpu().numpy()
        outputs, start = [], 0
        for number, count in enumerate(per_expert):
            end = start + count
            if count == 0:
                continue
            chosen = rows[start:end]
            output = self.experts[number](chosen)
            outputs.append(output)
            start = end
        outs = torch.cat(outputs, dim=0)
        restored = torch.empty_like(outs)
        restored[order] = outs
        shape, weights = (*topk_ids.shape, -1), topk_weight.unsqueeze(dim=-1)
        return restored.view(*shape).type(topk_weight.dtype).mul_(weights).sum(dim=1).type(restored.dtype)


class DeepseekV2DecoderLayer(nn.Module):
    def __init__(self, config, layer_idx):
        super().__init__()
        dense = layer_idx < config.first_k_dense_replace
        self.self_attn = ATTENTION_CLASSES[config._attn_implementation](config, layer_idx)
        self.mlp = DeepseekV2MLP(config, config.intermediate_size) if dense else DeepseekV2MoE(config)
        self.input_layernorm = DeepseekV2RMSNorm(config.hidden_size, 1e-6)
        self.post_attention_layernorm = DeepseekV2RMSNorm(config.hidden_size, 1e-6)

    def forward(self, hidden_states, attention_mask, position_ids, past_key_value):
        residual = hidden_states
        hidden_states = self.input_layernorm(hidden_states)
        hidden_states = self.self_attn(hidden_states, attention_mask, position_ids, past_key_value)
        hidden_states = residual + hidden_states
        residual = hidden_states
        hidden_states = self.post_attention_layernorm(hidden_states)
        hidden_states = self.mlp(hidden_states)
        hidden_states = residual + hidden_states
        return hidden_states


class DeepseekV2PreTrainedModel(PreTrainedModel):
    config_class = DeepseekV2Config
    base_model_prefix = "model"

    def _init_weights(self, module):
        pass  # torch's own initial weights do


class DeepseekV2Model(DeepseekV2PreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DeepseekV2DecoderLayer(config, number) for number in range(config.num_hidden_layers))
        self.norm = DeepseekV2RMSNorm(config.hidden_size, 1e-6)
        self._use_flash_attention_2 = config._attn_implementation == "flash_attention_2"

    def get_input_embeddings(self):
        return self.embed_tokens

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, inputs_embeds=None, use_cache=None):
        if self._use_flash_attention_2:
            attention_mask = attention_mask if 0 in attention_mask else None
        else:
            attention_mask = _causal_mask(attention_mask, inputs_embeds.shape[1], inputs_embeds.dtype)
        hidden_states = inputs_embeds
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask, position_ids, past_key_values if use_cache else None)
        hidden_states = self.norm(hidden_states)
        return (hidden_states, past_key_values)


class DeepseekV2ForCausalLM(DeepseekV2PreTrainedModel):
    pass
