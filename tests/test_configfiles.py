"""Configuration files and the command line are read strictly, before Snakemake reads them."""

import pytest

from prudent.errors import InputError
from prudent.ppo.settings import PPOSettings
from prudent.workflow.config import Config
from prudent.workflow.configfiles import check_command_line, read_config, typed

FILES = {
    "ppo: {steps: 3}\nseeds: 2\nppo: {epochs: 2}\n": "line 3: found the key `ppo` again, which",
    "ppo:\n  steps: 3\n  steps: 4\n": "line 3: found the key `steps` again",
    '{"seeds": 2, "seeds": 3}': "found the key `seeds` again",
    "ppo: &a\n  x: *a\n": "an alias inside the value that it stands for",
    "a: &a [1, 2]\nb: [*a, [*a, &b [*b]]]\n": "an alias inside the value",
    "a: &a {x: 1}\nb: &b {y: 2}\nc:\n  <<: *a\n  <<: *b\n": "line 5: found the key `<<` again",
    "seeds: " + "9" * 5000: "not valid YAML: Exceeds the limit",
    "ppo:\n\tsteps: 3\n": "line 2: not valid YAML",
    "ppo: {steps: 3\n": "not valid YAML",
    "- ppo\n": "found list, expected sections with keys",
    "text": "found str, expected sections with keys",
    "? [a, b]\n: 1\n": "found a list or a section as a key",
    "a: !!python/object/apply:os.system [ls]\n": "could not determine a constructor",
    "[" * 3000: "nested too deeply",
}


@pytest.mark.parametrize("text", FILES, ids=range(len(FILES)))
def test_files_are_read_strictly(tmp_path, text):
    path = tmp_path / "overlay.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        read_config(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: ") and FILES[text] in message and "\n" not in message


def test_files_that_are_none(tmp_path):
    for name, content, says in (
        ("latin.yaml", "a: 1\nscenario: tin\xe9\n".encode("latin-1"), "line 2: found bytes that"),
        ("none.yaml", None, "there is no such file; expected a configuration file"),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=says):
            read_config(path)
    with pytest.raises(InputError, match="expected a configuration file"):
        read_config(tmp_path)
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_config(tmp_path / "empty.yaml") == {}


def test_a_bomb_of_aliases_is_refused(tmp_path):
    lines = ["a0: &a0 [x]"] + [
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)
    ]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match="found more than 100000 values"):
        read_config(tmp_path / "bomb.yaml")


def test_anchors_and_merge_keys_are_no_duplicates(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  x: 3\n")
    assert read_config(tmp_path / "a.yaml")["b"] == {"x": 3, "y": 2}
    # The inner one is merged into another before it is made itself.
    (tmp_path / "b.yaml").write_text("a: {b: {c: &c {<<: {x: 1}, x: 2}}}\nd: {<<: *c, y: 3}\n")
    assert read_config(tmp_path / "b.yaml") == {"a": {"b": {"c": {"x": 2}}}, "d": {"x": 2, "y": 3}}


def test_values_of_the_command_line_take_the_settings_types():
    """As Snakemake hands over --config 'ppo={...}': every value below the first level is text."""
    given = {
        "ppo": {"steps": "3", "learning_rate": "1e-4", "bfloat16": "true", "max_grad_norm": "null"},
        "methods": {"vanilla": {"beta": "0.1", "ppo": {"epochs": "2"}}},
        "texts": {"sources": [{"world": "reviews", "rows": "5"}]},
        "preferences": {"gold": "7"},
        "scenario": "x",
        "seeds": 4,
    }
    found = typed(given, Config)
    assert found["ppo"] == {
        "steps": 3,
        "learning_rate": 1e-4,
        "bfloat16": True,
        "max_grad_norm": None,
    }
    assert found["methods"] == {"vanilla": {"beta": 0.1, "ppo": {"epochs": 2}}}
    assert found["texts"] == {"sources": [{"world": "reviews", "rows": 5}]}
    assert found["preferences"] == {"gold": "7"} and found["scenario"] == "x"
    assert typed({"ppo": {"steps": "many"}}, Config) == {"ppo": {"steps": "many"}}
    # Refused by the settings, as in a file.
    assert typed({"judge": {"model": "null"}}, Config) == {"judge": {"model": None}}


def test_a_number_of_thousands_of_digits_is_no_number():
    found = typed({"ppo": {"steps": "9" * 5000}}, Config)
    with pytest.raises(InputError, match="`steps` is the text '999.*expected a whole number >= 1"):
        PPOSettings(**found["ppo"])


def test_what_snakemake_would_answer_with_a_traceback_is_said_before(tmp_path):
    good = tmp_path / "good.yaml"
    good.write_text("seeds: 2\n")
    check_command_line([])
    check_command_line(["--configfile", str(good), "--config", "seeds=3", "-n"])
    check_command_line([f"--configfile={good}", "--cores", "2", "--config=seeds=3"])
    for arguments, says in (
        (["--configfile", "none.yaml"], "none.yaml: there is no such file"),
        (["-n", "--configfile", str(good), "none.yaml"], "none.yaml: there is no such file"),
        (["--config", "ppo.steps=3"], "write --config 'ppo={steps: 3}'"),
        (["--config", "a=1", "methods.vanilla.beta=3"], "'methods={vanilla: {beta: 3}}'"),
        (["--directory", str(good)], "good.yaml: found a file, expected a folder"),
        ([f"--directory={good}/below", "-n"], "good.yaml: found a file, expected a folder"),
        (["-d", str(good)], "good.yaml: found a file, expected a folder"),
        (["--config", "seeds"], "expected KEY=VALUE"),
        (["--config", "seeds=3", "seeds=4"], "seeds=4: the key `seeds` has the value 3 already"),
        (["--config", "seeds=3", "-C", "seeds=3"], "expected each key once"),
        (["--config", "ppo={steps: 3, steps: 4}"], "found the key `steps` again"),
    ):
        with pytest.raises(InputError) as refused:
            check_command_line(arguments)
        assert says in str(refused.value)
