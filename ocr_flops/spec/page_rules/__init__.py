"""What models make of a page, a rule a file; a rule is found by its name, which a learned model's config gives with its settings:

name: glm_ocr
label: GLM-OCR
pipeline: learned
architecture: GlmOcrForConditionalGeneration     # of transformers
page_rule: {name: smart_resize, patch_px: 14, merge: 2, least_px: 12544, most_px: 9633792}
config: {text_config: {num_hidden_layers: 16}}   # of the class, where it differs from its defaults
source: https://...                              # where these dimensions were read
"""

from ocr_flops.spec.page_rules.base import ONE_PAGE, PAGE_RULES, PageRule
from ocr_flops.spec.page_rules.longest_edge import LongestEdge
from ocr_flops.spec.page_rules.smart_resize import SmartResize
from ocr_flops.spec.page_rules.tiles import TilesBesideView, TilesWithThumbnail

__all__ = ["ONE_PAGE", "PAGE_RULES", "LongestEdge", "PageRule", "SmartResize", "TilesBesideView", "TilesWithThumbnail"]
