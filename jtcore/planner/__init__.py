"""What a recipe will need: memory, host memory, disk and arithmetic, told before it runs.

The real networks, adapters, losses and codecs are run on tensors without numbers; the trainer
imports nothing of this.
"""
