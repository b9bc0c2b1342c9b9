"""What each denoiser's layers are for, by name: patterns of modules (see jtcore.targets).

They are apart from the code that computes, so that a new role makes no weights, latents or runs
out of date.
"""

_JOINT_QKV = tuple(f"transformer_blocks.*.attn1.to_{one}" for one in "qkv")
_JOINT_ATTENTION = (*_JOINT_QKV, "transformer_blocks.*.attn1.to_out.0")
_JOINT_FEED_FORWARD = ("transformer_blocks.*.ff.net.0.proj", "transformer_blocks.*.ff.net.2")
# one attention sees text and all frames at once: no layer is temporal or spatial alone
COGVIDEOX = {
    "visual": _JOINT_ATTENTION + _JOINT_FEED_FORWARD,
    "attention": _JOINT_ATTENTION,
    "attention_qkv": _JOINT_QKV,
    "feed_forward": _JOINT_FEED_FORWARD,
    "joint": _JOINT_ATTENTION,
    "video_self": _JOINT_ATTENTION,
    "spatial_self": _JOINT_ATTENTION,
    "spatial_ff": _JOINT_FEED_FORWARD,
    "text_cross": _JOINT_ATTENTION,
    "text_kv": _JOINT_QKV[1:],  # the video's keys and values as well
}

# `.attentions.` are the spatial ones alone: the temporal are `.temp_attentions.`, whose `attn1` and
# `attn2` both attend over the frames, and `transformer_in`
_UNET_SPATIAL_SELF = ("*.attentions.*.attn1.to_[qkv]", "*.attentions.*.attn1.to_out.0")
_UNET_SPATIAL_FF = ("*.attentions.*.ff.net.0.proj", "*.attentions.*.ff.net.2")
_UNET_TEXT_CROSS = ("*.attentions.*.attn2.to_[qkv]", "*.attentions.*.attn2.to_out.0")
_UNET_TEMPORAL_SELF = (
    *("transformer_in.*.attn[12].to_[qkv]", "transformer_in.*.attn[12].to_out.0"),
    *("*.temp_attentions.*.attn[12].to_[qkv]", "*.temp_attentions.*.attn[12].to_out.0"),
)
_UNET_TEMPORAL_FF = (
    *("transformer_in.*.ff.net.0.proj", "transformer_in.*.ff.net.2"),
    *("*.temp_attentions.*.ff.net.0.proj", "*.temp_attentions.*.ff.net.2"),
)
UNET = {
    "visual": _UNET_SPATIAL_SELF + _UNET_SPATIAL_FF + _UNET_TEMPORAL_SELF + _UNET_TEMPORAL_FF,
    "spatial": _UNET_SPATIAL_SELF + _UNET_SPATIAL_FF,
    "temporal": _UNET_TEMPORAL_SELF + _UNET_TEMPORAL_FF,
    "attention": ("*.attn[12].to_[qkv]", "*.attn[12].to_out.0"),
    "attention_qkv": ("*.attn[12].to_[qkv]",),
    "feed_forward": _UNET_SPATIAL_FF + _UNET_TEMPORAL_FF,
    "spatial_self": _UNET_SPATIAL_SELF,
    "spatial_ff": _UNET_SPATIAL_FF,
    "temporal_self": _UNET_TEMPORAL_SELF,
    "temporal_ff": _UNET_TEMPORAL_FF,
    "temporal_conv": ("*.temp_convs.*.conv1.2", "*.temp_convs.*.conv[234].3"),  # not linear
    "text_cross": _UNET_TEXT_CROSS,
    "text_kv": ("*.attentions.*.attn2.to_[kv]",),
    # whole modules, with their norms and projections, for those who train weights
    "temporal_layers": ("transformer_in", "*.temp_attentions.[0-9]"),
    "temporal_conv_layers": ("*.temp_convs.[0-9]",),
}

_WAN_LINEARS = ("to_q", "to_k", "to_v", "to_out.0")
_WAN_VIDEO = tuple(f"blocks.*.attn1.{one}" for one in _WAN_LINEARS)
_WAN_TEXT = tuple(f"blocks.*.attn2.{one}" for one in _WAN_LINEARS)
_WAN_FEED_FORWARD = ("blocks.*.ffn.net.0.proj", "blocks.*.ffn.net.2")
# one attention over all frames at once, another from the video to the text
WAN = {
    "visual": _WAN_VIDEO + _WAN_FEED_FORWARD,
    "attention": _WAN_VIDEO + _WAN_TEXT,
    "attention_qkv": _WAN_VIDEO[:3] + _WAN_TEXT[:3],
    "feed_forward": _WAN_FEED_FORWARD,
    "video_self": _WAN_VIDEO,
    "spatial_self": _WAN_VIDEO,
    "spatial_ff": _WAN_FEED_FORWARD,
    "temporal_self": _WAN_VIDEO,
    "text_cross": _WAN_TEXT,
    "text_kv": _WAN_TEXT[1:3],
    "temporal_layers": ("blocks.*.attn1",),  # with the norms of queries and keys
}
