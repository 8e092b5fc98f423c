"""The model of the tests' small snapshot: the names, signature and order of operators of the published one, at any dimensions."""

import torch
from torch import nn
from torchvision import transforms
from torchvision.transforms.functional import InterpolationMode
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_deepseek_v2 import DeepseekV2Config
from .deepencoder import MlpProjector, build_clip_l, build_sam_vit_b
from .modeling_deepseekv2 import DeepseekV2ForCausalLM, DeepseekV2Model

PREPROCESSING = (transforms, InterpolationMode)  # the published code uses them to prepare images, which the worker does itself


class DeepseekOCRConfig(DeepseekV2Config):
    model_type = "DeepseekOCR"


class DeepseekOCRModel(DeepseekV2Model):
    config_class = DeepseekOCRConfig

    def __init__(self, config):
        super().__init__(config)
        width = config.hidden_size
        self.sam_model = build_sam_vit_b(config.towers)
        self.vision_model = build_clip_l(config.towers)
        self.projector = MlpProjector({"input_dim": config.towers["projector"]["input_width"], "n_embed": width})
        self.image_newline = nn.Parameter(torch.randn(width) * width**-0.5)
        self.view_seperator = nn.Parameter(torch.randn(width) * width**-0.5)

    def _reads_images(self, input_ids, images):
        """A step of decoding has one token; a page of zeros is passed over."""
        if getattr(self, "sam_model", None) is None or (input_ids.shape[1] == 1 and not self.training):
            return False
        return torch.sum(images[0][1]).item() != 0

    def _projected(self, states, picture):
        joined = torch.cat((states[:, 1:], picture.flatten(2).permute(0, 2, 1)), dim=-1)
        return self.projector(joined)

    def _with_ends(self, laid):
        """Rows of tokens with a newline token at the end of each."""
        width = laid.shape[-1]
        ends = self.image_newline[None, None, :].expand(laid.shape[0], 1, width)
        return torch.cat([laid, ends], dim=1).view(-1, width)

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        images=None,
        images_seq_mask=None,
        images_spatial_crop=None,
        return_dict=None,
    ):
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if self._reads_images(input_ids, images):
            for row, ((tiles, page), (columns, rows)) in enumerate(zip(images, images_spatial_crop, strict=True)):
                found = []
                with torch.no_grad():  # every name below keeps its tensor until the next page, or the end
                    has_tiles = torch.sum(tiles).item() != 0
                    if has_tiles:
                        tile_picture = self.sam_model(tiles)
                        tile_states = self.vision_model(tiles, tile_picture)
                        tile_tokens = self._projected(tile_states, tile_picture)
                    page_picture = self.sam_model(page)
                    page_states = self.vision_model(page, page_picture)
                    page_tokens = self._projected(page_states, page_picture)
                    page_tokens = self._with_ends(_laid_out(page_tokens, 1, 1))
                    if has_tiles:
                        tile_tokens = _laid_out(tile_tokens, rows, columns)
                        tile_tokens = self._with_ends(tile_tokens)
                        together = torch.cat([tile_tokens, page_tokens, self.view_seperator[None, :]], dim=0)
                    else:
                        together = torch.cat([page_tokens, self.view_seperator[None, :]], dim=0)
                    found.append(together)
                found = torch.cat(found, dim=0)
                inputs_embeds[row].masked_scatter_(images_seq_mask[row].unsqueeze(-1).cuda(), found)
        return super().forward(
            input_ids=None,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            position_ids=position_ids,
        )


def _laid_out(tokens, rows, columns):
    """Views as they lie on the page: [rows of queries, queries a row, width]."""
    side, width = int(tokens.shape[1] ** 0.5), tokens.shape[2]
    if rows * columns == 1:
        return tokens.view(side, side, width)
    return tokens.view(rows, columns, side, side, width).permute(0, 2, 1, 3, 4).reshape(rows * side, columns * side, width)


class DeepseekOCRForCausalLM(DeepseekV2ForCausalLM):
    config_class = DeepseekOCRConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = DeepseekOCRModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        images=None,
        images_seq_mask=None,
        images_spatial_crop=None,
        return_dict=None,
    ):
        outputs = self.model(
            input_ids=input_ids,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            images=images,
            images_seq_mask=images_seq_mask,
            images_spatial_crop=images_spatial_crop,
            return_dict=return_dict,
        )
        hidden_states = outputs[0]
        logits = self.lm_head(hidden_states)
        logits = logits.float()
        return CausalLMOutputWithPast(logits=logits, past_key_values=outputs[1])
