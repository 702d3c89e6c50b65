"""One-line error messages: the user's mistake, or a bug."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from agentqueue.errors import AgentQueueError, JobNotFound, QueueUnavailable, UsageError
from agentqueue.service import error_report
from agentqueue.service.error_report import explain, report, user_location


def raised(source: str, file: str, name: str = "theirs") -> Exception:
    """Return the error that the source raises, as code of that file and module."""
    try:
        exec(compile(source, file, "exec"), {"__name__": name})
    except Exception as exc:  # noqa: BLE001  # any error of the source
        own = exc.__traceback__
        return exc.with_traceback(own.tb_next if own else None)  # without this file's own frame
    raise AssertionError(source)


OURS = str(Path(error_report.__file__))


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (UsageError("no"), "no", 2),
        (JobNotFound("no"), "no", 3),
        (QueueUnavailable("redis://:hunter2@h is away"), "redis://***@h is away", 1),
        (ExceptionGroup("two", [AgentQueueError("no"), ValueError("x")]), "no", 1),
        (
            PermissionError(errno.EACCES, "Permission denied", "/a"),
            "/a: Permission denied; give this user access to it",
            1,
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "system error: No space left on device; make room there",
            1,
        ),
        (OSError(errno.EXDEV, "Odd", b"/a", None, b"/b"), "/a and /b: Odd", 1),
        (OSError(errno.EBADF, "Bad file descriptor", 7), "system error: Bad file descriptor", 1),
        (TimeoutError(), "system error: TimeoutError", 1),
        (MemoryError(), "there is not enough memory", 1),
        (UnicodeDecodeError("utf-8", b"a\xff", 1, 2, "bad"), "the input is not UTF-8 text (bad at byte 1)", 2),
        (
            ModuleNotFoundError("No module named 'ruamel.yaml'", name="ruamel.yaml"),
            "this needs more packages (No module named 'ruamel.yaml'): pip install 'agentqueue[cli]'",
            2,
        ),
    ],
    ids=lambda it: type(it).__name__,
)
def test_errors_that_are_not_bugs(error: BaseException, message: str, code: int) -> None:
    assert explain(error) == error_report.ErrorMessage(message, code)


def test_the_users_code_is_named_by_its_innermost_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    error = raised("def f():\n    import json\n    json.loads('{')\nf()", str(tmp_path / "a.py"))
    assert isinstance(error, json.JSONDecodeError)
    assert user_location(error) == "a.py, line 3"
    assert explain(error).message.startswith("your code raised JSONDecodeError: ")
    assert user_location(raised("1/0", "/elsewhere/b.py")) == "/elsewhere/b.py, line 1"
    assert explain(raised("raise OSError('no')", "/b.py")).message == "your code raised OSError: no (/b.py, line 1)"
    broken = raised("compile('x = (', '/c.py', 'exec')", OURS, "agentqueue.x")
    assert explain(broken).message == "your code raised SyntaxError: '(' was never closed (/c.py, line 1)"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (OURS, "agentqueue.service.error_report"),
        ("/usr/bin/agentqueue", "__main__"),
        ("<string>", "theirs"),
        ("<frozen importlib._bootstrap>", "importlib._bootstrap"),
        ("/x/site-packages/redis/client.py", "redis.client"),
        ("/x/dist-packages/redis/client.py", "redis.client"),
        (json.__file__, "json"),
    ],
)
def test_other_errors_are_bugs(file: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = raised("{}['x']", file, name)
    fault = explain(error)
    assert (fault.message, fault.is_bug) == ("unexpected KeyError: 'x'; please report it", True)
    assert report(error, "error:", debug=False) == 1
    assert capsys.readouterr().err == "error: unexpected KeyError: 'x'; please report it (--debug shows where)\n"
    for debug in (True, None):
        report(error, "error:", debug=debug)
        err = capsys.readouterr().err
        assert err.startswith("Traceback")
        assert err.endswith("please report it\n")


def test_a_mistake_has_a_traceback_only_with_debug(capsys: pytest.CaptureFixture[str]) -> None:
    error = raised("1/0", "/b.py")
    for debug, shown in ((None, False), (False, False), (True, True)):
        report(error, "agentqueue worker:", debug=debug)
        err = capsys.readouterr().err
        assert err.startswith("Traceback") is shown
        assert err.endswith("agentqueue worker: your code raised ZeroDivisionError: division by zero (/b.py, line 1)\n")


def test_an_error_that_can_not_be_shown_is_still_explained() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise ValueError

    error: Any = Odd()
    assert explain(error).is_bug
