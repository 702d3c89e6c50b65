"""The command line without a server: exit codes, error messages, tables, names, and the choice of a connection."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from importlib.metadata import EntryPoint
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup

from agentqueue.cli import main
from agentqueue.cli.connection import connection_from_environment
from agentqueue.cli.jobs import due_in
from agentqueue.cli.output import (
    cell,
    column_widths,
    encodable_json,
    format_age,
    format_duration,
    plain_table,
    printable,
)
from agentqueue.cli.submit import field_of, number_or_name, open_bulk, read_payload
from agentqueue.client.known_names import nearest
from agentqueue.errors import (
    AgentQueueError,
    InvalidPayload,
    JobNotFound,
    NotFound,
    QueueUnavailable,
    UsageError,
)
from agentqueue.local.server import Process
from agentqueue.local.state import find_up_state, read_up_state, remove_up_state, write_up_state
from agentqueue.model.new_job import NO_PAYLOAD
from agentqueue.model.times import from_ms
from agentqueue.model.wording import counted
from agentqueue.service.environment import REDIS_URL
from agentqueue.service.error_report import exit_code


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder without an `up`, and no Redis in the environment."""
    monkeypatch.delenv("AGENTQUEUE_REDIS_URL", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestMain:
    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (JobNotFound("x"), 3),
            (NotFound("x"), 3),
            (UsageError("x"), 2),
            (InvalidPayload("x"), 2),
            (QueueUnavailable("x"), 1),
            (AgentQueueError("x"), 1),
        ],
    )
    def test_exit_codes(self, error: AgentQueueError, code: int) -> None:
        assert exit_code(error) == code

    def test_without_a_server_the_four_ways_are_named(self, nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main.run(["stats"]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        for way in ("--redis URL", "AGENTQUEUE_REDIS_URL", "REDIS_URL", "agentqueue up FILE"):
            assert way in said.err
        assert "Traceback" not in said.err

    def test_debug_adds_the_traceback(self, nowhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main.run(["stats"], debug=True) == 2
        assert "Traceback" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("given", "left", "debug"),
        [
            (["stats"], ["stats"], False),
            (["--debug", "stats"], ["stats"], True),
            (["stats", "--debug"], ["stats"], True),
            (["submit", "q", "j", "--", "--debug"], ["submit", "q", "j", "--", "--debug"], False),
        ],
    )
    def test_debug_may_stand_anywhere(
        self, monkeypatch: pytest.MonkeyPatch, given: list[str], left: list[str], debug: bool
    ) -> None:
        calls: list[Any] = []

        def run(arguments: list[str], *, debug: bool) -> int:
            calls.append((arguments, debug))
            return 7

        monkeypatch.setattr(main, "run", run)
        monkeypatch.setattr(sys, "stdout", StringIO())
        monkeypatch.setattr(sys, "argv", ["agentqueue", *given])
        with pytest.raises(SystemExit) as exit_info:
            main.main()
        assert exit_info.value.code == 7
        assert calls == [(left, debug)]

    @pytest.mark.parametrize(
        ("command", "package"),
        [
            ("up", "agentqueue-operator"),
            ("explain", "agentqueue-operator"),
            ("render", "agentqueue-operator"),
            ("worker", "agentqueue-worker"),
            ("check", "agentqueue-worker"),
        ],
    )
    def test_a_command_that_is_not_installed_says_what_to_install(
        self, command: str, package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(main, "entry_points", lambda **_: ())
        assert main.run([command, "file"]) == 2
        assert capsys.readouterr().err.endswith(f"pip install {package}\n")
        assert main.run(["uq"]) == 2
        assert "No such command" in capsys.readouterr().err

    def test_commands_whose_packages_are_missing_say_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        broken = EntryPoint("worker", "nowhere_at_all:register", main.GROUP)
        gone = EntryPoint("up", "agentqueue_operator.gone:register", main.GROUP)
        monkeypatch.setattr(main, "entry_points", lambda **_: (broken, gone))
        assert main.run(["version"]) == 0
        first, second = capsys.readouterr().err.splitlines()
        assert first.endswith(
            "are missing: No module named 'agentqueue_operator.gone'; pip install 'agentqueue-operator'"
        )
        assert second.endswith("are missing: No module named 'nowhere_at_all'")

    def test_a_bug_is_one_line_and_asks_for_debug(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.with_command(monkeypatch, eval("lambda: 1 / 0"))  # It has no source file.
        assert main.run(["broken"]) == 1
        assert capsys.readouterr().err == (
            "error: unexpected ZeroDivisionError: division by zero; please report it (--debug shows where)\n"
        )

    def test_ctrl_c_is_130(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt() -> None:
            raise KeyboardInterrupt

        self.with_command(monkeypatch, interrupt)
        assert main.run(["broken"]) == 130

    def with_command(self, monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
        """Add the command `broken`, as another package could."""

        class Extension:
            name = "other"
            value = "other.cli:register"

            def load(self) -> Any:
                return lambda app: app.command("broken")(act)

        monkeypatch.setattr(main, "entry_points", lambda group: [Extension()])

    def test_commands_of_other_packages_are_found(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main.run(["--help"]) == 0
        said = capsys.readouterr().out
        for command in ("submit", "status", "jobs", "cancel", "stats", "dead", "pause", "resume", "validate", "crd"):
            assert f"\n  {command} " in said

    def test_a_package_that_fails_to_import_does_not_remove_other_commands(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        broken = EntryPoint("x", "agentqueue.nowhere:register", main.GROUP)
        monkeypatch.setattr(main, "entry_points", lambda group: [broken])
        assert main.run(["version"]) == 0
        said = capsys.readouterr()
        assert said.out.startswith("agentqueue ")
        assert "the commands of agentqueue.nowhere:register are missing" in said.err

    @pytest.mark.parametrize("arguments", [["version"], ["--version"]])
    def test_version(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main.run(arguments) == 0
        assert capsys.readouterr().out == "agentqueue 0.1.0\n"

    @pytest.mark.parametrize(
        "arguments", [["nonsense"], ["submit"], ["stats", "--interval", "0"], ["jobs", "q", "-n", "x"]]
    )
    def test_wrong_usage_is_2(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main.run(arguments) == 2
        assert "Usage: agentqueue" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "arguments",
        [
            ["dead", "replay"],
            ["dead", "replay", "q", "a", "--all"],
            ["dead", "discard", "--fingerprint", "abc"],
            ["dead", "list", "--ids"],
        ],
    )
    def test_an_unclear_choice_of_dead_letters_is_2(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main.run([*arguments, "--redis", "redis://127.0.0.1:1"]) == 2
        assert "QUEUE" in capsys.readouterr().err


def test_every_reading_command_has_json() -> None:
    click_app = main.build_command(extensions=False)
    assert isinstance(click_app, TyperGroup)
    commands: dict[str, Any] = dict(click_app.commands)
    for group in ("dead", "schedules"):
        commands |= {f"{group} {name}": command for name, command in commands.pop(group).commands.items()}
    without = {n for n, c in commands.items() if not any("--json" in p.opts for p in c.params)}
    assert without == {"version"}


HEAVY = {"redis", "pydantic", "rich", "structlog", "ruamel", "kopf", "kubernetes", "arq", "uvloop", "asyncio"}
"""Slow modules. `import agentqueue` has a limit of 150 ms, and `agentqueue --help` one of 300 ms."""


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import agentqueue", id="import"),
        pytest.param("from agentqueue.cli.main import run; run(['--help'])", id="help"),
    ],
)
def test_start_imports_no_slow_module(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print(*sys.modules, file=sys.stderr)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not HEAVY & set(done.stderr.split())


class TestConnecting:
    URL = "redis://:secret@127.0.0.1:7"

    def test_the_order(self, nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_up_state(nowhere, {REDIS_URL: "redis://up:1"}, pid=os.getpid())
        assert connection_from_environment(None).url == "redis://up:1"
        monkeypatch.setenv("REDIS_URL", "redis://plain:1")
        assert connection_from_environment(None).url == "redis://plain:1"
        monkeypatch.setenv("AGENTQUEUE_REDIS_URL", "redis://ours:1")
        assert connection_from_environment(None).url == "redis://ours:1"
        assert connection_from_environment("redis://given:1").url == "redis://given:1"

    def test_the_up_of_a_folder_above_counts(self, nowhere: Path) -> None:
        write_up_state(nowhere, {REDIS_URL: self.URL}, pid=os.getpid())
        below = nowhere / "a" / "b"
        below.mkdir(parents=True)
        assert connection_from_environment(None, below).url == self.URL
        remove_up_state(nowhere)
        remove_up_state(nowhere)
        with pytest.raises(UsageError, match="no Redis to connect to"):
            connection_from_environment(None, below)

    def test_the_state_file_is_private_and_ignored_by_git(self, nowhere: Path) -> None:
        path = write_up_state(nowhere, {REDIS_URL: self.URL}, pid=os.getpid())
        assert path.stat().st_mode & 0o077 == 0
        assert json.loads(path.read_text())["connection"] == {REDIS_URL: self.URL}
        assert (path.parent / ".gitignore").read_text() == "*\n"

    def test_the_state_of_an_ended_process_does_not_count(self, nowhere: Path) -> None:
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        write_up_state(nowhere, {REDIS_URL: self.URL}, pid=process.pid)
        assert read_up_state(nowhere) is not None
        process.communicate()
        assert find_up_state(nowhere) is None

    def test_a_later_process_with_the_same_pid_is_another(self) -> None:
        mine = Process.of(os.getpid())
        assert mine.is_alive
        assert not Process(mine.pid, "1").is_alive

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", '{"pid": 1}', '{"connection": {}, "pid": 1}', '{"connection": 1, "pid": 1}']
    )
    def test_a_broken_state_file_does_not_count(self, nowhere: Path, text: str) -> None:
        path = write_up_state(nowhere, {REDIS_URL: self.URL}, pid=os.getpid())
        path.write_text(text)
        assert read_up_state(nowhere) is None


class TestSubmitting:
    @pytest.mark.parametrize(("text", "value"), [("5", 5), ("high", "high"), (None, None), ("²", "²")])
    def test_priorities(self, text: str | None, value: Any) -> None:
        assert number_or_name(text) == value

    def test_payloads(self, tmp_path: Path) -> None:
        file = tmp_path / "a.json"
        file.write_text('{"a":\n 1}')
        assert (read_payload(None), read_payload("null")) == (NO_PAYLOAD, None)
        assert read_payload("[1]") == [1]
        assert read_payload('"Z\udcc3\udcbcrich"') == "Zürich"  # Python reads arguments this way in the locale C.
        with pytest.raises(InvalidPayload, match="the payload is not JSON"):
            read_payload('"\udcff"')
        assert read_payload(f"@{file}") == {"a": 1}
        file.write_text('{"a":\n x}')
        with pytest.raises(InvalidPayload, match=r"a\.json is not JSON: .*line 2"):
            read_payload(f"@{file}")
        with pytest.raises(NotFound, match="can't read"):
            read_payload("@nowhere.json")

    def test_bulks(self, tmp_path: Path) -> None:
        file = tmp_path / "a.jsonl"
        file.write_text("1\n2\n")
        assert open_bulk("{}") is open_bulk(None) is open_bulk("@a.json") is None
        source = open_bulk(f"@{file}")
        assert source is not None
        with source.lines:
            assert list(source.lines) == [b"1\n", b"2\n"]
        stdin = open_bulk("-")
        assert stdin is not None
        assert stdin.name == "standard input"

    @pytest.mark.parametrize(("payload", "found"), [({"id": "x"}, "x"), ({"id": 7}, "7")])
    def test_ids_from_fields(self, payload: Any, found: str) -> None:
        assert field_of(payload, "id") == found

    @pytest.mark.parametrize("payload", [{}, {"id": ""}, {"id": None}, {"id": True}, {"id": 1.5}, [1], "id"])
    def test_no_id_in_the_field(self, payload: Any) -> None:
        with pytest.raises(InvalidPayload, match="no field 'id'"):
            field_of(payload, "id")


class TestOutput:
    def test_columns_are_aligned_under_capitals(self) -> None:
        assert plain_table(["id", "per min"], [["a", "10"], ["long", "5"]]) == "ID    PER-MIN\na     10\nlong  5"

    @pytest.mark.parametrize(
        ("width", "widths"),
        [
            pytest.param(80, {"queue": 11, "per min": 7, "error": 30}, id="all-of-it"),
            pytest.param(50, {"queue": 11, "per min": 7, "error": 24}, id="texts-are-folded-first"),
            pytest.param(40, {"queue": 11, "error": 24}, id="then-optional_columns-columns-go"),
            pytest.param(30, {"queue": None, "error": None}, id="then-words-are-folded"),
        ],
    )
    def test_a_narrow_terminal_folds_text_columns_then_drops_optional_ones(
        self, width: int, widths: dict[str, Any]
    ) -> None:
        row = ["client-data", "5", "no airport of that name at all"]
        assert column_widths(["queue", "per min", "error"], [row], width=width, optional_columns=["per min"]) == widths

    @pytest.mark.parametrize(
        ("width", "left"),
        [
            pytest.param(60, {"id", "age", "progress", "error"}, id="all-of-it"),
            pytest.param(45, {"id", "age", "error"}, id="what-is-empty-goes-first"),
            pytest.param(30, {"id", "age", "progress"}, id="what-has-room-again-comes-back"),
        ],
    )
    def test_dropped_columns(self, width: int, left: set[str]) -> None:
        rows = [["trip-1", "3m", "-", "no airport of that name at all"]]
        columns, optional_columns = ["id", "age", "progress", "error"], ["age", "error", "progress"]
        assert set(column_widths(columns, rows, width=width, optional_columns=optional_columns)) == left

    def test_characters_that_the_encoding_lacks_are_escaped_as_json(self) -> None:
        assert encodable_json('{"a":"ü"}', "latin-1") == '{"a":"ü"}'
        assert encodable_json('{"a":"ü\N{GRINNING FACE}"}', "ascii") == r'{"a":"\u00fc\ud83d\ude00"}'

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (None, "-"),
            (5, "5"),
            ({"a": [1]}, '{"a":[1]}'),
            ("two\n lines", "two lines"),
            ("\x1b[31mred", "\N{REPLACEMENT CHARACTER}[31mred"),
            ("x" * 121, "x" * 119 + "…"),
        ],
    )
    def test_cells(self, value: Any, text: str) -> None:
        assert cell(value) == text

    def test_lines_may_be_kept(self) -> None:
        assert printable("a\n\tb\r", lines=True) == "a\n\tb\N{REPLACEMENT CHARACTER}"

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (None, "-"),
            (0, "0s"),
            (59.9, "59s"),
            (60, "1m"),
            (3_599, "59m"),
            (7_200, "2h"),
            (200_000, "2d"),
            (-90, "in 1m"),
        ],
    )
    def test_spans(self, seconds: float | None, text: str) -> None:
        assert format_duration(seconds) == text

    def test_ages(self) -> None:
        now = from_ms(1_800_000_000_000)
        assert format_age(now - timedelta(minutes=3), now) == "3m"
        assert format_age(None, now) == "-"

    @pytest.mark.parametrize(
        ("wait", "text"),
        [
            (12.4, "in 12s"),
            (90, "in 1m"),
            (0.4, "now"),
            pytest.param(-2, "now", id="clock-ahead-of-the-servers"),
        ],
    )
    def test_due_times(self, wait: float, text: str) -> None:
        now = from_ms(1_800_000_000_000)
        assert due_in(now + timedelta(seconds=wait), now) == text

    def test_counts(self) -> None:
        assert (counted(1, "job"), counted(2_000, "job")) == ("1 job", "2,000 jobs")


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("flight-serch", ["hotels", "flight-search"], "did you mean 'flight-search'?"),
        ("zzz", ["b", "a"], "there is a, b"),
        (
            "zzz",
            [f"q{n:02}" for n in range(12)],
            "there is q00, q01, q02, q03, q04, q05, q06, q07, q08, q09 and 2 more",
        ),
    ],
)
def test_the_nearest_name(name: str, known: list[str], hint: str) -> None:
    assert nearest(name, known) == hint
