"""Scripts under Snakemake and by hand."""

import importlib
import inspect
import logging
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
from snakemake.iocontainers import InputFiles, Log, OutputFiles, Params, ResourceList, Wildcards

from prudent.errors import InputError
from prudent.paths import portable
from prudent.policies.settings import SamplingSettings
from prudent.rewards.settings import HeadSettings, SpreadSettings
from prudent.workflow import entry

SCRIPTS = Path(__file__).resolve().parents[1] / "workflow_scripts"


@dataclass
class Args:
    data: Path
    members: list[Path]
    table: Path
    settings: dict[str, Any]
    rate: float
    seed: int
    method: str
    judge: Path | None = None
    revision: str | None = None
    names: list[str] = field(default_factory=list)
    threads: int = 1


class Job:
    """What a script is given, made of Snakemake's own containers."""

    def __init__(self, log=None, **params):
        self.input = InputFiles(fromdict={"data": "d.parquet", "members": ["m0"], "judge": []})
        self.output = OutputFiles(fromdict={"table": "t.csv"})
        self.params = Params(fromdict={"settings": {"a": 1}, "rate": 1, **params})
        self.wildcards = Wildcards(fromdict={"seed": "3", "method": "vanilla"})
        self.log = Log([str(log)] if log else [])
        self.resources = ResourceList(fromdict={})
        self.config = {"data_root": "."}
        self.threads = 2


def test_arguments_of_a_job():
    args = entry.from_snakemake(Args, Job())
    assert args == Args(
        data=Path("d.parquet"),
        members=[Path("m0")],
        table=Path("t.csv"),
        settings={"a": 1},
        rate=1.0,
        seed=3,
        method="vanilla",
        threads=2,
    )
    assert isinstance(args.rate, float)


def test_a_field_that_the_rule_does_not_name_is_an_error():
    @dataclass
    class More(Args):
        missing: int = field(kw_only=True)

    with pytest.raises(TypeError, match="missing"):
        entry.from_snakemake(More, Job())


def main(args: Args) -> None:
    """Stands for a script's main."""


COMMAND = [
    "--data=d.parquet",
    *("--members", "m0", "m1"),
    "--table=t.csv",
    '--settings={"a": {"b": [1]}}',
    "--rate=1",
    "--seed=3",
    "--method=7",
]


def test_arguments_on_the_command_line():
    args = entry.from_command_line(Args, main, COMMAND)
    assert args == Args(
        data=Path("d.parquet"),
        members=[Path("m0"), Path("m1")],
        table=Path("t.csv"),
        settings={"a": {"b": [1]}},
        rate=1.0,
        seed=3,
        method="7",
    )
    assert entry.from_command_line(Args, main, [*COMMAND, "--judge=j"]).judge == Path("j")
    assert entry.from_command_line(Args, main, [*COMMAND, "--members", "m"]).members == [Path("m")]
    assert entry.from_command_line(Args, main, [*COMMAND, "--revision=12"]).revision == "12"
    assert entry.from_command_line(Args, main, [*COMMAND, "--revision=None"]).revision is None
    with pytest.raises(SystemExit):
        entry.from_command_line(Args, main, COMMAND[1:])


@pytest.mark.parametrize(
    "wrong", ["--settings=text", "--settings=[1]", "--rate=fast", "--seed=1.5", "--no=1"]
)
def test_a_mistake_on_the_command_line_is_no_traceback(wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        entry.from_command_line(Args, main, [*COMMAND, wrong])
    told = capsys.readouterr()
    assert stop.value.code == 2 and "Traceback" not in told.err
    assert wrong.partition("=")[0] in told.err + told.out


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.stem)
def test_every_option_of_a_script_has_its_help(script):
    """The comment beside each field, which is what ``--help`` shows."""
    module = importlib.import_module(script.stem)
    source = inspect.getsource(module.Args)
    for item in fields(module.Args):
        assert re.search(rf"^    {item.name}: .+  # \w", source, re.MULTILINE), item.name


def test_help_shows_the_meanings():
    command = [sys.executable, str(SCRIPTS / "respond.py"), "--help"]
    output = subprocess.run(command, capture_output=True, text=True)
    assert output.returncode == 0
    assert "Let a method's policies answer the test prompts." in output.stdout
    assert re.search(r"--prompt-count INT\s+│?\s*│?\s*test prompts to answer", output.stdout)


def test_arguments_become_options_and_arguments_again():
    args = entry.from_command_line(Args, main, [*COMMAND, "--judge=a b/c", "--names"])
    assert entry.from_command_line(Args, main, entry.to_command_line(args)) == args
    assert "--revision" not in "".join(entry.to_command_line(args))


@dataclass
class Switch:
    on: bool = False  # whether it is


@dataclass
class Typed:
    sampling: SamplingSettings  # how
    spread: SpreadSettings = SpreadSettings()  # of what
    heads: HeadSettings | None = None  # if any


def test_settings_are_checked_once_under_snakemake_and_by_hand(capsys):
    job = Job(sampling={"temperature": 0.5}, spread={"shuffled": True}, heads=None)
    expected = Typed(SamplingSettings(temperature=0.5), SpreadSettings(shuffled=True))
    assert entry.from_snakemake(Typed, job) == expected
    assert entry.from_command_line(Typed, main, entry.to_command_line(expected)) == expected
    given = Typed(SamplingSettings(), heads=HeadSettings(epochs=2))
    assert entry.from_command_line(Typed, main, entry.to_command_line(given)) == given
    job = Job(sampling={"temprature": 0.5})
    with pytest.raises(InputError, match="unknown key `temprature`, did you mean `temperature`"):
        entry.from_snakemake(Typed, job)
    with pytest.raises(SystemExit) as caught:
        entry.from_command_line(Typed, main, ['--sampling={"temperature": -1}'])
    assert caught.value.code == 2
    printed = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().err).split())
    assert "`temperature` is -1; expected a number >" in printed


@pytest.mark.parametrize("on", [True, False])
def test_what_is_true_or_false_is_an_option_without_a_value(on):
    options = entry.to_command_line(Switch(on))
    assert options == ["--on" if on else "--no-on"]
    assert entry.from_command_line(Switch, main, options) == Switch(on)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--seed=1.5", "Error parsing --seed: invalid literal for int"),
        ("--seed=abc", "Error parsing --seed: invalid literal for int"),
        ("--settings=[[1, 2]]", "found [[1, 2]], expected a JSON object"),
        ("--settings=5", "found 5, expected a JSON object"),
        ('--settings={"a": 1, "a": 2}', "found the key 'a' twice, expected each key once"),
        ('--settings={"a": NaN}', "found NaN, expected a finite number"),
    ],
)
def test_bad_values_by_hand_are_named(option, says, capsys):
    with pytest.raises(SystemExit) as caught:
        entry.from_command_line(Args, main, [*COMMAND, option])
    assert caught.value.code == 2
    printed = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().err).split())
    assert says in printed


def test_paths_below_the_folder_of_the_data():
    job = Job(settings={"sources": [{"path": "{data_root}/a.csv"}], "rows": 3})
    job.config = {"data_root": "/data/./here"}
    args = entry.from_snakemake(Args, job)
    assert args.settings == {"sources": [{"path": "/data/here/a.csv"}], "rows": 3}
    assert portable(args.settings, "/data/here/") == job.params.settings
    assert portable("/data/hereafter", "/data/here") == "/data/hereafter"


def test_a_folder_given_as_its_files():
    job = Job()
    files = ["/models/m/config.json", "/models/m/deep/model.safetensors"]
    job.input = InputFiles(fromdict={"data": "d.parquet", "members": ["m0"], "judge": files})
    assert entry.from_snakemake(Args, job).judge == Path("/models/m")
    job.input = InputFiles(fromdict={"data": "d", "members": ["m0"], "judge": "models/m.sha256"})
    assert entry.from_snakemake(Args, job).judge == Path("models/m")


def test_a_jobs_output_goes_to_its_log(tmp_path, capsys):
    log = tmp_path / "logs" / "job.log"

    def job(args):
        print("printed")
        print("to the error stream", file=sys.stderr)
        logging.getLogger("prudent").info("logged")

    entry.run(job, Args, Job(log))
    text = log.read_text()
    assert "printed" in text and "to the error stream" in text and "logged" in text
    assert "printed" in capsys.readouterr().out
    assert type(sys.stdout).__name__ != "_Both"


def test_a_log_ends_with_what_the_job_took(tmp_path, capsys):
    log = tmp_path / "job.log"
    entry.run(lambda args: time.sleep(0.3 * len(set(b"x" * 300_000_000))), Args, Job(log))
    seconds, memory = entry.logged_use(log)
    assert 0.3 <= seconds < 60 and 0.3 < memory < 60
    assert "of memory" in log.read_text().splitlines()[-1]
    # Of the GPU where there is one; the last one told, as a log may have several attempts.
    log.write_text("took 3.0 s and at most 2.50 GB of memory\n")
    assert entry.logged_use(log) == (3.0, 2.5)
    with log.open("a") as file:
        file.write("took 4.0 s and at most 2.50 GB of memory and 7.25 GB of GPU memory\n")
    assert entry.logged_use(log) == (4.0, 7.25)
    log.write_text("nothing\n")
    assert entry.logged_use(log) is None and entry.logged_use(tmp_path / "none.log") is None


def test_logging_after_the_job_is_no_error(tmp_path, capsys):
    entry.run(main, Args, Job(tmp_path / "job.log"))
    logging.getLogger("prudent").warning("afterwards")
    assert "Logging error" not in capsys.readouterr().err


def test_bad_input_ends_with_one_message_and_a_crash_with_its_traceback(tmp_path):
    def bad(args):
        raise InputError("config.yaml: seeds: found 0, expected at least 1")

    with pytest.raises(SystemExit) as caught:
        entry.run(bad, Args, Job(tmp_path / "bad.log"))
    assert caught.value.code == 1
    text = (tmp_path / "bad.log").read_text()
    assert "config.yaml: seeds: found 0" in text and "Traceback" not in text

    def crash(args):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        entry.run(crash, Args, Job(tmp_path / "crash.log"))
    text = (tmp_path / "crash.log").read_text()
    assert "Traceback" in text and "RuntimeError: broken" in text


@pytest.mark.parametrize("variables", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}])
def test_messages_of_any_script_whatever_the_locale(tmp_path, variables):
    script = tmp_path / "job.py"
    script.write_text(SPOKEN, encoding="utf-8")
    output = subprocess.run(
        [sys.executable, str(script), "--log", str(tmp_path / "log")],
        env=os.environ | variables | {"PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
    )
    assert output.returncode == 1 and b"Traceback" not in output.stderr
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert "метод → \\ud800" in log and "error: тексты: 映画" in log


SPOKEN = """
from dataclasses import dataclass
from types import SimpleNamespace
import sys
from prudent.errors import InputError
from prudent.workflow import entry

@dataclass
class Args:
    threads: int = 1

def main(args):
    print("метод → \\ud800")
    raise InputError("тексты: 映画")

class Part(dict):
    pass

job = SimpleNamespace(input=Part(), output=Part(), params=Part(), wildcards=Part(), threads=1,
    log=[sys.argv[2]], resources={}, config={})
entry.run(main, Args, job)
"""
