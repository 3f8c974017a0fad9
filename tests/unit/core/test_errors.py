from __future__ import annotations

from openworks.core import errors


def test_docstring_draws_the_whole_tree() -> None:
    assert errors.__doc__ is not None
    drawn = {
        line.split()[0]: line.split()[1].rstrip(",")
        for line in errors.__doc__.splitlines()
        if line.startswith("    ") and line.split()[0] != "AppError"
    }
    classes = {
        name: error_class
        for name, error_class in errors.error_classes().items()
        if error_class.__module__ == errors.__name__ and name != "AppError"
    }
    assert set(drawn) == set(classes)
    for name, status in drawn.items():
        assert classes[name].status == int(status), name


def test_retryable_classes_are_those_that_a_client_should_repeat() -> None:
    statuses = {cls.status for cls in errors.error_classes().values() if cls.retryable}
    assert statuses <= {429, 503, 504}


def test_instance_code_wins_over_the_class() -> None:
    assert errors.NotFoundError("No.").code == "not_found"
    assert errors.NotFoundError("No.", code="gone").code == "gone"
