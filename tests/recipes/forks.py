"""Forks of a process that has all imports, so that a start takes no time."""

import atexit
import os
import sys
import tempfile

import torch


def started(work, words, scratch=None):
    """
    The number of a fork that calls `work`, with one thread. What it gives is the exit code.

    Args:
        work: without arguments.
        words: the file to which all that it prints is added.
        scratch: its folder for temporary files, where that is another than usual.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            log = os.open(str(words), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            tempfile.tempdir = scratch and str(scratch)
            code = work()
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    return child


def ended(child):
    """A fork's exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
