"""The process that scores, in COMET's own environment: JSON lines in, JSON lines out, until stdin closes.

    in    {"model": str, "sources": [str], "hypotheses": [str], "references": [str] or null, "batch_size": int}
    out   {"done": int} after each batch, with the number of sentences so far; then one of
          {"scores": [float], "requires_references": bool} in the order of the sentences
          {"error": str}

Imports nothing of mtselect: it is started by its path, with another Python.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

Request = dict[str, Any]
Say = Callable[[Request], None]


def main() -> None:
    """Answer each line of stdin."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    requests: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    import comet  # type: ignore[import-not-found]  # noqa: F401  (a broken environment ends the process here)

    models: dict[str, Any] = {}
    while True:
        request = json.loads(requests.get())
        try:
            answer = _score(models, request, lambda part: print(json.dumps(part), file=answers))
        except Exception as error:
            traceback.print_exc()
            answer = {"error": _explain(error, request)}
        print(json.dumps(answer), file=answers)


def _read(requests: SimpleQueue[str]) -> None:
    """Pass stdin on. Its end, as when the parent is killed, ends this process at once, whatever it is doing."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def _score(models: dict[str, Any], request: Request, say: Say) -> Request:
    import comet
    import torch

    name, size = request["model"], request["batch_size"]
    if name not in models:
        models[name] = comet.load_from_checkpoint(name if name.endswith(".ckpt") else comet.download_model(name))
    model = models[name]
    needs = model.requires_references()
    columns = {"src": request["sources"], "mt": request["hypotheses"], "ref": request["references"]}
    if columns["ref"] is None:
        if needs and columns["src"]:
            return {"error": f"{name!r} compares with references and was given none: give references, or choose a "
                             "reference-free model such as Unbabel/wmt22-cometkiwi-da"}
        del columns["ref"]
    samples = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    # Sorted by length for little padding, as COMET's own `predict` does; longest first, so that memory fails early or never.
    order = sorted(range(len(samples)), key=lambda index: -len(samples[index]["src"]))
    scores = [0.0] * len(samples)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model.eval().to(device)
        for start in range(0, len(order), size):
            chunk = order[start:start + size]
            with torch.inference_mode():
                inputs = model.prepare_sample([samples[index] for index in chunk], stage="predict")
                found = model.predict_step(model.transfer_batch_to_device(inputs, device, 0))["scores"]
            for index, score in zip(chunk, found.flatten().tolist(), strict=True):
                scores[index] = score
            say({"done": start + len(chunk)})
    finally:
        if device.type == "cuda":  # training has the GPU between two requests
            model.to("cpu")
            torch.cuda.empty_cache()
    return {"scores": scores, "requires_references": needs}


def _explain(error: BaseException, request: Request) -> str:
    """One sentence on what is wrong and what to do."""
    name = request["model"]
    chain, cause = [error], error.__cause__ or error.__context__  # comet hides the hub's own error behind a KeyError
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    kinds = {kind.__name__ for link in chain for kind in type(link).__mro__}
    if "OutOfMemoryError" in kinds:
        return (f"{name!r} does not fit into the GPU's memory with batch_size {request['batch_size']}: choose a smaller one, "
                "or a smaller model")
    if "GatedRepoError" in kinds:
        return (f"{name!r} is gated: accept its terms on its page of the model hub, then run `hf auth login` or set HF_TOKEN, "
                "and run the same command again")
    if kinds & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "ConnectTimeout"}:
        return (f"{name!r} cannot be downloaded, the model hub is out of reach: connect, unset HF_HUB_OFFLINE, or give a "
                "checkpoint's folder")
    if kinds & {"RepositoryNotFoundError", "HFValidationError"}:
        return (f"there is no {name!r} on the model hub, or it is private: check the name (such as Unbabel/wmt22-comet-da), or "
                "run `hf auth login`, or give a checkpoint's folder")
    return f"{name!r} failed with {type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
