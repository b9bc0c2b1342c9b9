"""`jt-run` in a process forked where torch is imported already: seconds instead of ten.

Given by the test: `arguments`, `directory`, the file `log` for what is printed, and what a launcher
would have put into the `environment`.
"""

import os
import sys

import torch

from jtcore import cli

os.environ |= globals().get("environment", {})
os.chdir(directory)  # noqa: F821 - given
handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)  # noqa: F821 - given
os.dup2(handle, 1)
os.dup2(handle, 2)
torch.set_num_threads(1)
sys.exit(cli.run(arguments))  # noqa: F821 - given
