"""Files that only predict, loaded: TorchScript, programs of torch.export, ONNX. All become a `Program`."""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xai_assert.errors import CheckpointError

INSTALL = "pip install 'xai-assert[onnx]'"
SUFFIXES = {
    **dict.fromkeys((".pt", ".pth", ".ts", ".torchscript"), "TorchScript"),
    ".pt2": "torch.export",
    ".onnx": "ONNX",
}
# In the bytes of an ONNX file: the key "location" of a tensor that lies in a file beside it, and the tag of its value
EXTERNAL = re.compile(rb"\n\x08location\x12([\x01-\x7f])")
ONNX_TYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(double)": torch.float64}


@dataclass(frozen=True)
class Program:
    """A loaded file: `call` takes images (B, C, H, W) on `device` and gives its raw output.

    `dtype` is that of its input, where the file says it; `shape` its (B, C, H, W), None where any number goes, as far
    as the file says it. `digest` is SHA-256 of all its bytes.
    """

    format: str
    file: str
    digest: str
    call: Callable[[Tensor], Any]
    device: torch.device
    dtype: torch.dtype | None = None
    shape: tuple[int | None, ...] = (None, None, None, None)


def load_program(what: str | os.PathLike[str] | Any, device: torch.device | None = None) -> Program:
    """The program of a file, or a copy of one in memory (a ScriptModule, an ExportedProgram), which stays as it is.

    Raises:
        CheckpointError: the file is missing, damaged, or of another format than its name says.
        ImportError: an ONNX file, and onnxruntime is not installed.
        ValueError: a name that ends otherwise.
        TypeError: neither a path nor a program.
    """
    if isinstance(what, str | os.PathLike):
        path = Path(what).expanduser()
        kind = SUFFIXES.get(path.suffix.lower())
        if kind is None:
            raise ValueError(
                f"artefact {path.name!r}: its name must end in one of {', '.join(SUFFIXES)}, which say what it is"
            )
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"artefact {path}: {error.strerror or error}; give the path of a file") from error
        if kind == "ONNX":
            return _onnx(path, content, device)
        return LOADERS[kind](path.name, content, device)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of TorchScript, which is what the caller has
        if isinstance(what, torch.jit.ScriptModule):
            torch.jit.save(what, buffer)
            return _torchscript("in memory", buffer.getvalue(), device)
        if isinstance(what, torch.export.ExportedProgram):
            torch.export.save(what, buffer)
            return _exported("in memory", buffer.getvalue(), device)
    hint = "; a module that runs in Python goes to xa.describe" if isinstance(what, nn.Module) else ""
    raise TypeError(
        "artefact must be a path (.pt, .pt2, .onnx), a torch.jit.ScriptModule or a torch.export.ExportedProgram, not "
        f"{type(what).__name__}{hint}"
    )


def _torchscript(file: str, content: bytes, device: torch.device | None) -> Program:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            module = torch.jit.load(io.BytesIO(content), map_location=device)  # type: ignore[no-untyped-call]
    except Exception as error:
        raise unreadable(file, "TorchScript", error, "; a state dict is no program: load it in Python") from error
    module.eval()  # as every model is measured
    tensors = [*module.parameters(), *module.buffers()]
    dtype = next((t.dtype for t in tensors if t.is_floating_point()), None)
    place = device or (tensors[0].device if tensors else torch.device("cpu"))
    return Program("TorchScript", file, sha256(content), module, place, dtype)


def _exported(file: str, content: bytes, device: torch.device | None) -> Program:
    try:
        program = torch.export.load(io.BytesIO(content))
        if device is not None:
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        module = program.module()
    except Exception as error:
        raise unreadable(file, "torch.export", error) from error
    names = program.graph_signature.user_inputs
    inputs = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    check_inputs(file, inputs)
    shape = tuple(size if isinstance(size, int) else None for size in inputs[0].shape)
    return Program("torch.export", file, sha256(content), module, inputs[0].device, inputs[0].dtype, shape)


def _onnx(path: Path, content: bytes, device: torch.device | None) -> Program:
    try:
        onnxruntime: Any = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ImportError(f"artefact {path.name} needs onnxruntime: {INSTALL}", name="onnxruntime") from error
    there = onnxruntime.get_available_providers()
    wanted: list[Any] = ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" in there and (device is None or device.type == "cuda") and torch.cuda.is_available():
        wanted.insert(0, ("CUDAExecutionProvider", {"device_id": (device.index if device else None) or 0}))
    elif device is not None and device.type != "cpu":
        raise ValueError(f"device {str(device)!r}: this onnxruntime runs on {', '.join(there)}; give device='cpu'")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        # from its path: the weights of a large file lie beside it
        session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:
        raise unreadable(path.name, "ONNX", error) from error
    inputs, names = session.get_inputs(), [output.name for output in session.get_outputs()]
    check_inputs(path.name, inputs)
    dtype = ONNX_TYPES.get(inputs[0].type)
    if dtype is None:
        raise CheckpointError(f"artefact {path.name} takes {inputs[0].type}; images are {', '.join(ONNX_TYPES)}")

    def call(images: Tensor) -> Any:
        found = session.run(None, {inputs[0].name: images.numpy()})
        outputs = [torch.from_numpy(array) for array in found]
        return outputs[0] if len(outputs) == 1 else dict(zip(names, outputs, strict=True))

    shape = tuple(size if isinstance(size, int) else None for size in inputs[0].shape)
    beside = [file.read_bytes() for file in external_files(path, content) if file.is_file()]
    return Program("ONNX", path.name, sha256(content, *beside), call, torch.device("cpu"), dtype, shape)


def external_files(path: Path, content: bytes) -> list[Path]:
    """The files that hold tensors of an ONNX file, as its bytes name them; the `onnx` package is not needed."""
    names = {content[m.end() : m.end() + m[1][0]] for m in EXTERNAL.finditer(content)}
    return [path.parent / name.decode(errors="replace") for name in sorted(names)]


def check_inputs(file: str, inputs: Sequence[Any]) -> None:
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        shapes = [tuple(one.shape) for one in inputs]
        raise CheckpointError(
            f"artefact {file} takes {len(inputs)} inputs {shapes}, where one, images (B, C, H, W), can be explained; "
            "export a module that takes the images alone"
        )


def sha256(*contents: bytes) -> str:
    """Of one or several files, 64 hex digits."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def unreadable(file: str, kind: str, error: Exception, hint: str = "") -> CheckpointError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return CheckpointError(f"artefact {file} is damaged, or no {kind} file{hint} ({lines[0][:200]})")


LOADERS: Mapping[str, Callable[[str, bytes, torch.device | None], Program]] = {
    "TorchScript": _torchscript,
    "torch.export": _exported,
}
