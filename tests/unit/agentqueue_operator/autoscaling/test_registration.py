"""Tests of the decision on the registration of a version: by example, and that it settles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentqueue_operator.autoscaling.registration import RegistrationStep, registration_step

A, B = "a" * 16, "b" * 16


@pytest.mark.parametrize(
    ("kept", "registered", "heard", "step"),
    [
        pytest.param(None, "", set(), RegistrationStep.RUN_ONE, id="new"),
        pytest.param(None, B, set(), RegistrationStep.RUN_ONE, id="new-after-another-version"),
        pytest.param(None, A, {A}, RegistrationStep.KEEP, id="its-worker-has-registered"),
        pytest.param(None, B, {A}, RegistrationStep.RUN_ONE, id="workers-of-another-version-keep-it-from-registering"),
        pytest.param(None, "", {None}, RegistrationStep.KEEP_NONE, id="its-worker-registers-nothing"),
        pytest.param(None, A, {None, A}, RegistrationStep.KEEP, id="one-of-its-workers-has-registered"),
        pytest.param(A, A, set(), RegistrationStep.NOTHING, id="at-zero"),
        pytest.param(A, A, {A}, RegistrationStep.NOTHING, id="in-service"),
        pytest.param(A, B, set(), RegistrationStep.RESTORE, id="rolled-back-at-zero"),
        pytest.param(A, "", set(), RegistrationStep.RESTORE, id="the-registration-was-removed"),
        pytest.param(A, B, {A}, RegistrationStep.NOTHING, id="its-workers-register-again-themselves"),
        pytest.param(A, B, {B}, RegistrationStep.KEEP, id="other-code-under-the-same-template"),
        pytest.param("", "", set(), RegistrationStep.NOTHING, id="an-older-release-at-zero"),
        pytest.param("", B, {None}, RegistrationStep.NOTHING, id="an-older-release-after-a-newer-one"),
        pytest.param("", B, {B}, RegistrationStep.KEEP, id="a-newer-release-under-the-same-template"),
    ],
)
def test_steps(kept: str | None, registered: str, heard: set[str | None], step: RegistrationStep) -> None:
    assert registration_step(kept=kept, registered=registered, heard=heard) is step


fingerprints = st.sampled_from([A, B])


@given(st.none() | st.just("") | fingerprints, st.just("") | fingerprints, st.frozensets(st.none() | fingerprints))
def test_what_is_kept_never_runs_a_pod_and_a_step_settles(
    kept: str | None, registered: str, heard: frozenset[str | None]
) -> None:
    step = registration_step(kept=kept, registered=registered, heard=heard)
    assert (step is RegistrationStep.RUN_ONE) <= (kept is None)
    if step is RegistrationStep.KEEP:
        assert registered in heard
        kept = registered
    elif step is RegistrationStep.KEEP_NONE:
        kept = ""
    elif step is RegistrationStep.RESTORE:
        assert kept
        registered = kept
    else:
        return
    assert registration_step(kept=kept, registered=registered, heard=heard) is RegistrationStep.NOTHING
