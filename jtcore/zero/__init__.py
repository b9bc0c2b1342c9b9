"""DeepSpeed's ZeRO: what is trained is divided among processes.

DeepSpeed divides, reduces and steps; branches, precision, loss scale and checkpoints are as with
one process. Trained parameters are float32 and DeepSpeed is told of no other precision; autocast is
ours. No other part of jtcore knows DeepSpeed.
"""
