"""The Python that has imported already behaves as Python does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cluster import wait_for
from conftest import environment, python

ENDS = {
    "print('well')": 0,
    "import sys; sys.exit(3)": 3,
    "raise SystemExit('a message')": 1,
    "raise ValueError('an error')": 1,
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": -9,
    "raise KeyboardInterrupt": -2,
    "import atexit; atexit.register(print, 'at its end')": 0,
    "import sys; print(sys.argv[1:], input(), __name__); print('error', file=sys.stderr)": 0,
    "import threading; threading.Timer(0.2, print, [1]).start()": 0,
    "import os, torch; print(torch.get_num_threads(), os.environ['SOME'], os.getcwd())": 0,
    "import sibling; print(sibling.VALUE)": 0,
}


def run(executable: str, script: Path, **variables: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [executable, script, "--some", "argument"],
        input="a line\n",
        cwd=script.parent,
        env=environment(script.parent) | {"SOME": "thing", "OMP_NUM_THREADS": "2"} | variables,
        capture_output=True,
        text=True,
    )
    last = done.stderr.strip().rpartition("\n")[2]  # of a traceback, the error alone
    return done.returncode, done.stdout, last


@pytest.mark.parametrize("code", ENDS)
def test_a_script_prints_and_ends_as_with_python_itself(tmp_path, code):
    (tmp_path / "sibling.py").write_text("VALUE = 5\n")
    script = tmp_path / "script.py"
    script.write_text(code)
    warm = run(python(), script)
    assert warm == run(sys.executable, script)
    assert warm[0] == ENDS[code]


@pytest.mark.parametrize(
    ("variables", "served"), [({}, True), ({"PYTHONUTF8": "1"}, False), ({"LC_ALL": "C"}, False)]
)
def test_what_python_reads_when_it_starts_is_left_to_it(tmp_path, variables, served):
    script = tmp_path / "script.py"
    script.write_text("import sys; print('snakemake.cli' in sys.modules, sys.executable)")
    executable = python() if served else sys.executable
    assert run(python(), script, **variables)[1].split() == [str(served), executable]


def waiting(tmp_path: Path, code: str = "") -> tuple[subprocess.Popen[bytes], int]:
    """A script that waits, and the process that runs it."""
    script = tmp_path / "script.py"
    script.write_text(
        f"import os, signal, time\n{code}\n"
        "open('new', 'w').write(str(os.getpid()))\nos.rename('new', 'process')\ntime.sleep(600)\n"
    )
    caller = subprocess.Popen([python(), script], cwd=tmp_path, env=environment(tmp_path))
    wait_for((tmp_path / "process").exists, "the script", caller)
    process = int((tmp_path / "process").read_text())
    assert process != caller.pid
    return caller, process


def gone(process: int) -> bool:
    return not Path(f"/proc/{process}").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_script(tmp_path, number):
    caller, process = waiting(tmp_path)
    caller.send_signal(number)
    assert caller.wait() == -number and gone(process)


def test_a_script_may_catch_a_signal(tmp_path):
    caller, _ = waiting(tmp_path, "signal.signal(signal.SIGTERM, lambda *_: os._exit(7))")
    caller.terminate()
    assert caller.wait() == 7


@pytest.mark.parametrize("stopped", [False, True])
def test_a_script_ends_with_its_caller(tmp_path, stopped):
    caller, process = waiting(tmp_path)
    if stopped:
        os.kill(process, signal.SIGSTOP)
    caller.kill()
    caller.wait()
    wait_for(lambda: gone(process), "the script's end")
