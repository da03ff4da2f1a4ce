"""Scores with COMET through a worker process in COMET's own environment."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from mtselect.errors import CometError
from mtselect.metrics._comet.install import INSTALL, environment, is_installed, python

WORKER = Path(__file__).with_name("worker.py")
TAIL = 4000  # bytes of the worker's stderr that are looked at
LOOK_SECONDS = 15.0  # that its Python may take to say a version
LINES = 8  # of them, shown


class CometScorer:
    """COMET's scores of any number of models, from one process that is started when first needed and kept.

    One request at a time, from any thread. Between requests the process holds no GPU memory but CUDA's own.
    """

    def __init__(self) -> None:
        self.path = environment()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None

    def score(self, model: str, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str] | None, *,
              batch_size: int = 16, advance: Callable[[int], None] = lambda n: None) -> list[float]:
        """Score translations, sentence by sentence; most models score from 0 to 1, larger is better.

        Args:
            model: name on the model hub (downloaded once), folder with `checkpoints/model.ckpt`, or that file.
            sources: n sentences.
            hypotheses: their n translations.
            references: n reference translations, or None; reference-free models ignore them.
            batch_size: sentences at once.
            advance: called with the number of sentences scored since its last call; n in all.

        Returns:
            n scores, in order.

        Raises:
            CometError: COMET is not installed, the model cannot be had or needs references, memory does not suffice, or the
                process died twice.
        """
        if any(len(column) != len(sources) for column in (hypotheses, references) if column is not None):
            raise ValueError("sources, hypotheses and references must be equally many")
        request = {"model": _checkpoint(model), "batch_size": batch_size, "sources": list(sources),
                   "hypotheses": list(hypotheses), "references": None if references is None else list(references)}
        scores: list[float] = self._ask(request, advance)["scores"]
        return scores

    def requires_references(self, model: str) -> bool:
        """Whether a model cannot score without references; loads it. Raises as `score` does."""
        request = {"model": _checkpoint(model), "batch_size": 1, "sources": [], "hypotheses": [], "references": None}
        return bool(self._ask(request, lambda n: None)["requires_references"])

    def look(self, model: str) -> str:
        """What will score, in words; starts nothing that stays and loads no model.

        Raises:
            CometError: COMET is not installed or its Python does not run, or the model is a path where there is none.
        """
        _checkpoint(model)
        self._require_installed()
        code = "import importlib.metadata as m; print(m.version('unbabel-comet'))"
        asked: list[str | Path] = [python(self.path), "-I", "-c", code]
        try:
            version = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=LOOK_SECONDS).stdout.strip()
        except (OSError, subprocess.SubprocessError) as error:
            raise CometError(f"COMET's environment in {self.path} does not answer ({error}): remove it and run `{INSTALL}`"
                             ) from error
        return f"{model}, by COMET {version} in {self.path}"

    def close(self) -> None:
        """End the process; a later request starts another."""
        with self._lock:
            self._stop()

    def _ask(self, request: dict[str, Any], advance: Callable[[int], None]) -> dict[str, Any]:
        """Send a request and wait for its answer; a process that dies is started again, once."""
        with self._lock:
            try:
                answer = self._exchange(request, advance)
            except BaseException:  # Ctrl-C: the answer to come must not be taken for that of the next request
                self._stop()
                raise
        if "error" in answer:
            raise CometError(f"COMET: {answer['error']}")
        return answer

    def _exchange(self, request: dict[str, Any], advance: Callable[[int], None]) -> dict[str, Any]:
        line, told = json.dumps(request).encode() + b"\n", 0
        for _ in range(2):
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(line)
                process.stdin.flush()
            for said in process.stdout:
                if not said.endswith(b"\n"):  # it died while it wrote
                    break
                answer: dict[str, Any] = json.loads(said)
                if "done" not in answer:
                    return answer
                if answer["done"] > told:  # not again after a restart
                    advance(answer["done"] - told)
                    told = answer["done"]
            death = self._death(process)
            self._stop()
        raise CometError(f"COMET's process died twice while it scored with {request['model']!r}: {death}\nif memory is short, "
                         f"choose a smaller batch_size or model; if COMET is broken, remove {self.path} and run `{INSTALL}`")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None:
            return self._process
        self._require_installed()
        self._stderr = tempfile.TemporaryFile("a+b")  # noqa: SIM115  (as long as the process)
        # In a process group of its own, since Ctrl-C goes to all of the terminal's.
        self._process = subprocess.Popen([python(self.path), "-I", str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=self._stderr, process_group=0)
        self._end = weakref.finalize(self, _end, self._process, self._stderr)  # also when Python ends
        return self._process

    def _require_installed(self) -> None:
        if not is_installed(self.path):
            raise CometError(f"COMET is not installed in {self.path}: run `{INSTALL}`, or set MTSELECT_COMET_ENV")

    def _stop(self) -> None:
        if self._process is not None:
            self._end()
            self._process = None

    def _death(self, process: subprocess.Popen[bytes]) -> str:
        """What is known of a process that closed its stdout."""
        assert self._stderr is not None
        try:
            code = process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it closed its output"
        size = os.fstat(self._stderr.fileno()).st_size
        text = os.pread(self._stderr.fileno(), TAIL, max(0, size - TAIL)).decode(errors="replace")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return "\n  ".join([f"{how}; its last lines:", *text.splitlines()[-LINES:]])


def _end(process: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # what it did not read any more
        process.stdin.close()
    process.stdout.close()
    stderr.close()


def _checkpoint(model: str) -> str:
    """A local model as the absolute path of its checkpoint; a name on the hub as it is."""
    path = Path(model).expanduser()
    if path.is_dir():
        path = path / "checkpoints" / "model.ckpt"
    elif path.suffix != ".ckpt" and not model.startswith(("/", ".", "~")):
        return model
    if not path.is_file():
        raise CometError(f"COMET model {model!r} has no file {path}: give a folder with checkpoints/model.ckpt, a .ckpt file, "
                         "or a name on the model hub such as Unbabel/wmt22-comet-da")
    return str(path.absolute())  # its symlinks stay: hparams.yaml is sought beside them
