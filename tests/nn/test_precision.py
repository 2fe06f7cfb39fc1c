"""Where bf16 is native, and what is said where it is not."""

import warnings

import pytest
import torch

from mtrl.nn import has_bf16, uses_bf16

CPU = torch.device("cpu")


def test_bf16_that_is_emulated_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    assert not has_bf16(CPU)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        assert [uses_bf16("bf16", CPU) for _ in range(3)] == [True] * 3
        assert not uses_bf16("auto", CPU) and not uses_bf16("fp32", CPU)
    (found,) = caught
    assert "agent.precision=auto takes fp32" in str(found.message)


@pytest.mark.parametrize("instructions", ["avx512_bf16", "amx_bf16", "bf16"])
def test_native_bf16_is_used_without_a_word(monkeypatch: pytest.MonkeyPatch, instructions: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instructions: True})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert uses_bf16("bf16", CPU) and uses_bf16("auto", CPU) and not uses_bf16("fp32", CPU)
