"""Runs one network in one engine whenever a line arrives, and answers with seconds.

    serve.py unet|vae ENGINE PRECISION --model DIR --inputs FILE --save FILE [--threads 2]

ENGINE is `openvino` or `torch`, PRECISION `f32`, `bf16` or, for OpenVINO, `w8a8`: quantized by NNCF, with
bf16 for what it leaves real; or `w8a16`: weights alone, by NNCF, computed in bf16. The output of the last run is saved, as f32
under the name `output`, when standard input ends. A file converted for OpenVINO stays in `--cache`.
"""

import argparse
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

import network


def converted(options):
    """The network as an OpenVINO file.

    It keeps f32: stored in f16, also the frequencies of the time embedding would be rounded,
    and the noise prediction with them.
    """
    import openvino as ov

    place = Path(options.cache) / f"{Path(options.model).resolve().name}-{options.component}"
    shapes = [tuple(t.shape) for t in network.inputs(options.component, options.inputs)]
    path = place / f"{'x'.join(str(n) for n in shapes[0])}.xml"
    if not path.exists():
        module = network.load(options.component, options.model, torch.float32)
        example = tuple(network.inputs(options.component, options.inputs))
        with torch.no_grad():
            model = ov.convert_model(module, example_input=example,
                                     input=[ov.PartialShape(list(shape)) for shape in shapes])
        place.mkdir(parents=True, exist_ok=True)
        ov.save_model(model, path, compress_to_fp16=False)
        # A fresh process maps the file instead of holding the traced copy.
        del model, module
        os.execv(sys.executable, [sys.executable, *sys.argv])
    return path


def quantized(options):
    """The network with whole weights and activations, by NNCF's own choice of where."""
    source = converted(options)
    path = source.with_name(source.stem + "-w8a8.xml")
    if not path.exists():
        import nncf
        import openvino as ov

        # Only speed is looked at: one sample for the ranges, and nothing that trades time for quality.
        sample = [t.numpy() for t in network.inputs(options.component, options.inputs)]
        model = nncf.quantize(
            ov.Core().read_model(source), nncf.Dataset([sample]), subset_size=1,
            model_type=nncf.ModelType.TRANSFORMER if options.component == "unet" else None,
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                disable_bias_correction=True,
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)))
        ov.save_model(model, path, compress_to_fp16=False)
        del model
        os.execv(sys.executable, [sys.executable, *sys.argv])
    return path


def compressed(options):
    """The network with whole weights, by NNCF."""
    source = converted(options)
    path = source.with_name(source.stem + "-w8a16.xml")
    if not path.exists():
        import nncf
        import openvino as ov

        model = nncf.compress_weights(ov.Core().read_model(source), mode=nncf.CompressWeightsMode.INT8_ASYM)
        ov.save_model(model, path, compress_to_fp16=False)
        del model
        os.execv(sys.executable, [sys.executable, *sys.argv])
    return path


def openvino(options):
    import openvino as ov
    import openvino.properties as properties
    import openvino.properties.hint as hint

    core = ov.Core()
    precision = ov.Type.f32 if options.precision == "f32" else ov.Type.bf16
    path = {"w8a8": quantized, "w8a16": compressed}.get(options.precision, converted)(options)
    compiled = core.compile_model(path, "CPU", {
        hint.inference_precision: precision,
        hint.performance_mode: hint.PerformanceMode.LATENCY,
        hint.execution_mode: hint.ExecutionMode.PERFORMANCE,
        properties.inference_num_threads: options.threads,
        properties.num_streams: 1,
    })
    request = compiled.create_infer_request()
    values = [t.numpy() for t in network.inputs(options.component, options.inputs)]

    def run():
        request.infer(values)
        return lambda: torch.from_numpy(np.array(request.get_output_tensor(0).data))

    return run


def pytorch(options):
    torch.set_num_threads(options.threads)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[options.precision]
    module = network.load(options.component, options.model, dtype)
    module = module.to(memory_format=torch.channels_last)
    values = [t.to(dtype) for t in network.inputs(options.component, options.inputs)]
    if options.component == "unet":
        values[1] = values[1].float()

    @torch.inference_mode()
    def run():
        result = module(*values)
        return lambda: result

    return run


def main():
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("component", choices=["unet", "vae"])
    parser.add_argument("engine", choices=["openvino", "torch"])
    parser.add_argument("precision", choices=["f32", "bf16", "w8a8", "w8a16"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--inputs", required=True)
    parser.add_argument("--save", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", default="/tmp/mixdq-peers")
    options = parser.parse_args()
    run = {"openvino": openvino, "torch": pytorch}[options.engine](options)
    result = None
    for _line in sys.stdin:
        start = time.perf_counter()
        result = run()
        print(f"{time.perf_counter() - start:.6f}", flush=True)
    if result is not None:
        save_file({"output": result().float().clone().contiguous()}, options.save)


if __name__ == "__main__":
    main()
