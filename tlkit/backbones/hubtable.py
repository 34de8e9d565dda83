"""What no rule finds out about KerasHub's backbones: the licence of their weights, and what to pool."""

from __future__ import annotations

from typing import NamedTuple

APACHE, MIT, BSD = "Apache-2.0", "MIT", "BSD-3-Clause"


class Licence(NamedTuple):
    """The licence of published weights.

    Args:
        name: Short; it is what `backbone.accept_license` takes.
        terms: Where it asks for consent: what it is called and where to read it.
    """

    name: str
    terms: str = ""


GEMMA = Licence("gemma", "the Gemma Terms of Use, https://ai.google.dev/gemma/terms")
DINOV3 = Licence("dinov3", "the DINOv3 License, https://ai.meta.com/resources/models-and-libraries/dinov3-license")
SAM = Licence("sam", "the SAM License, https://github.com/facebookresearch/sam3/blob/main/LICENSE")
NVIDIA = Licence(
    "nvidia-segformer",
    "the NVIDIA Source Code License for SegFormer, without commercial use, "
    "https://github.com/NVlabs/SegFormer/blob/master/LICENSE",
)
NONCOMMERCIAL = Licence("cc-by-nc-4.0", "CC BY-NC 4.0, https://creativecommons.org/licenses/by-nc/4.0")


class Family(NamedTuple):
    """Backbones of one class of KerasHub.

    Args:
        licence: Of the published weights, as their authors state it.
        with_mean: Whether the mean of all patches goes beside the class token, as in the linear evaluation of
            Oquab et al. 2023 (arXiv:2304.07193, section 7.1 and appendix B.3).
    """

    licence: Licence
    with_mean: bool = False


FAMILIES = {
    "CLIPVisionEncoder": Family(Licence(MIT)),
    "CSPNetBackbone": Family(Licence(APACHE)),
    "DINOV2Backbone": Family(Licence(APACHE), with_mean=True),
    "DINOV3Backbone": Family(DINOV3, with_mean=True),
    "DeiTBackbone": Family(Licence(APACHE)),
    "DenseNetBackbone": Family(Licence(APACHE)),
    "EfficientNetBackbone": Family(Licence(APACHE)),
    "HGNetV2Backbone": Family(Licence(APACHE)),
    "MetaCLIP2VisionEncoder": Family(NONCOMMERCIAL),
    "MiTBackbone": Family(NVIDIA),
    "MobileNetBackbone": Family(Licence(APACHE)),
    "MobileNetV5Backbone": Family(GEMMA),
    "ResNetBackbone": Family(Licence(APACHE)),
    "SAM3VisionEncoder": Family(SAM),
    "SigLIPVisionEncoder": Family(Licence(APACHE)),
    "SwinTransformerBackbone": Family(Licence(MIT)),
    "VGGBackbone": Family(Licence(BSD)),
    "ViTBackbone": Family(Licence(APACHE)),
    "ViTDetBackbone": Family(Licence(APACHE)),
    "XceptionBackbone": Family(Licence(APACHE)),
}
"""By the class of the backbone, or of its vision encoder where it has a text encoder too."""
UNKNOWN = Family(Licence("unknown"))
