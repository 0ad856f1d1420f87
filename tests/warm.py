"""A Python that has imported already: what a test starts often begins within a tenth of a second.

`start` writes a command that does what ``python SCRIPT`` and ``python -m MODULE`` do, and starts
the server behind it. The server imports, once, what most jobs import (ten seconds of a core), and
forks itself for each call: the fork has the caller's folder, environment, files and arguments; it
gets the signals that its caller gets, and ends with it. What the server can't know at its own
start, such as another encoding or another place of the Hugging Face hub, goes to a real Python.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path

PRELOAD = (
    *("pandas", "pyarrow.parquet", "pyarrow.dataset", "pydantic", "scipy.optimize", "scipy.stats"),
    *("transformers.models.gpt2.modeling_gpt2", "transformers.tokenization_utils_tokenizers"),
    *("accelerate", "matplotlib.pyplot"),
    # Nothing of this project: each copy of it that a test makes has modules of its own.
    *("snakemake.cli", "snakemake.report", "snakemake_executor_plugin_slurm"),
)
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

CALLER = '''#!{python} -ISE
"""A Python that has imported already (tests/warm.py)."""
import json, os, signal, socket, sys

SERVED = {variables!r}


def concerns(name):
    return name.startswith({prefixes!r}) and name not in {free!r}


arguments, given = sys.argv[1:], dict(os.environ)
# A script, or a module; and nothing that Python or the libraries read when they start.
served = arguments[:1] and (arguments[0][0] != "-" or arguments[:2] == ["-m", "snakemake"])
if not served or {{n: v for n, v in given.items() if concerns(n)}} != SERVED:
    os.execv({python!r}, [{python!r}, *arguments])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = dict(arguments=arguments, folder=os.getcwd(), variables=given, executable=sys.argv[0])
message = json.dumps(request).encode("utf-8", "surrogateescape")
socket.send_fds(server, [len(message).to_bytes(8, "big")], [0, 1, 2])
server.sendall(message)
for number in {forwarded!r}:
    signal.signal(number, lambda number, _: server.send(bytes([number])))
status = int(server.recv(16) or 137)
if status < 0:
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
'''
PREFIXES = ("PYTHON", "HF_", "TRANSFORMERS_", "LC_", "LANG", "MPL")
FREE = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")


def start(folder: Path) -> tuple[Path, subprocess.Popen[bytes]]:
    """The command's path, in a folder of its own, and the server, which is to be killed.

    The server's environment is what tests start Snakemake with.
    """
    address = folder / "socket"
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SNAKEMAKE", "XDG", "PYTEST")) and name not in FREE
    } | {
        **{"HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg", "HOME": str(folder)},
        **{"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
    }
    command = folder / "python"
    command.write_text(
        CALLER.format(
            python=sys.executable,
            variables={n: v for n, v in variables.items() if n.startswith(PREFIXES)},
            prefixes=PREFIXES,
            free=FREE,
            address=str(address),
            forwarded=[int(number) for number in FORWARDED],
        )
    )
    command.chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, __file__, str(address)],
        env=variables,
        stdin=subprocess.PIPE,  # closed when the tests end, however they end
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not address.exists():
        assert server.poll() is None, "the server has ended"
    return command, server


def serve(address: Path) -> None:
    """Answers calls until the standard input is closed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that none becomes a zombie
    # Ctrl-C reaches what is started, also where the tests were started in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{address}.new")
    listener.listen(64)
    os.rename(f"{address}.new", address)
    loaded = False
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        if not loaded:
            for name in PRELOAD:
                __import__(name)
            loaded = True
        caller, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            attend(caller)
            os._exit(0)
        caller.close()


def attend(caller: socket.socket) -> None:
    """Runs what a caller asks for in a process of its own, and tells the caller how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, files, _, _ = socket.recv_fds(caller, 8, 3)
    message, length = b"", int.from_bytes(head, "big")
    while len(message) < length:
        part = caller.recv(length - len(message))
        if not part:  # the caller is gone
            return
        message += part
    request = json.loads(message.decode("utf-8", "surrogateescape"))
    worker = os.fork()
    if worker == 0:
        os.setpgid(0, 0)
        caller.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        _end(_run(**request))
    for file in files:
        os.close(file)
    ended = os.pidfd_open(worker)
    while True:
        ready, _, _ = select.select([caller, ended], [], [])
        if ended in ready:
            break
        number = caller.recv(1)
        if not number:  # the caller is gone, and so is all that it started
            os.kill(worker, signal.SIGCONT)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(worker, signal.SIGKILL)
            os.kill(worker, signal.SIGKILL)
            break
        os.kill(worker, number[0])
    status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    with contextlib.suppress(OSError):
        caller.send(str(status).encode())


def _run(
    arguments: list[str], folder: str, variables: dict[str, str], executable: str
) -> BaseException | None:
    """Does what an interpreter does with its arguments; what ended it, if anything did."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.__stderr__ = open(
        2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    sys.executable = executable
    sys.dont_write_bytecode = bool(variables.get("PYTHONDONTWRITEBYTECODE"))
    sys.path[0:1] = filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))
    if "torch" in sys.modules and variables.get("OMP_NUM_THREADS", "1") != "1":
        sys.modules["torch"].set_num_threads(int(variables["OMP_NUM_THREADS"]))
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            sys.path.insert(0, folder)
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
            runpy.run_path(arguments[0], run_name="__main__")
    except BaseException as error:
        return error
    return None


def _end(error: BaseException | None) -> None:
    """Ends this process as an interpreter ends."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if code and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
    elif error is not None:
        traceback.print_exception(error)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError, OSError):
            stream.flush()
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
