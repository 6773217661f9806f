"""Starts the user's own gunicorn with the watch in it: `begin.py RUN LOOK STACKS NET SCRIPT ARGUMENTS...`.

RUN is the run folder, LOOK and STACKS are the signals that ask for a look and for native stacks, NET is `offline` where
connections that leave this machine are to be refused, SCRIPT is the script `gunicorn`, or `-m` for the module. What
gunicorn, the app and the programs that it starts see of this is what `python SCRIPT ARGUMENTS...` would show them:
path, arguments and environment are put back first.
"""

import os
import sys


def begin():
    """Install the watch; what is to be run."""
    folder, look, stacks, net, script = sys.argv[1:6]
    ours = sys.path[0]
    os.environ["FORKPROOF_RUN"] = folder
    from forkproof_payload import watch

    del os.environ["FORKPROOF_RUN"]
    sys.path[0] = os.getcwd() if script == "-m" else os.path.dirname(script)
    sys.path_importer_cache.pop(ours, None)
    sys.argv[:] = ["gunicorn" if script == "-m" else script] + sys.argv[6:]
    watch.begin(int(look), int(stacks))
    if net == "offline":
        watch.stay_offline()
    return script


def run(script):
    """Be that script."""
    import runpy

    if script == "-m":
        runpy.run_module("gunicorn", run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    run(begin())
