"""The compiled loops on an Apple processor: LLVM's code for one, which has no vectors but those of four floats."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = '''
import re
import sys
import llvmlite.binding as llvm
import numpy as np
sys.path.insert(0, "harness/model")  # without torch
import cpu_kernels

def zeros(*shape):
    return np.zeros(shape, np.float32)

one, B, T, H, D = np.float32(1), 1, 16, 8, 16
cpu_kernels.rms_norm(zeros(T, D), zeros(D), one, zeros(T, D), zeros(T))
cpu_kernels.attention(zeros(3 * D, T), zeros(H), zeros(H), zeros(T, H), zeros(T, H), one, one, zeros(D, T),
                      zeros(B, D // H, T))
llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
triple = "arm64-apple-macosx14.0.0"
machine = llvm.Target.from_triple(triple).create_target_machine(cpu="apple-m1", opt=3)
for kernel in (cpu_kernels.rms_norm, cpu_kernels.attention):
    text = kernel.overloads[kernel.signatures[0]].library.get_llvm_str()
    text = re.sub('target triple = ".*"', f'target triple = "{triple}"', text)
    text = re.sub('target datalayout = ".*"', f'target datalayout = "{machine.target_data}"', text)
    module = llvm.parse_assembly(text)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    print(len(re.findall(r"fmla\\.4s", machine.emit_assembly(module))))
'''


def test_they_are_vectorized_for_an_apple_processor(tmp_path):
    """From code that is not optimized yet, which holds nothing of this machine's processor."""
    environment = os.environ | {"NUMBA_OPT": "0", "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    norm, attention = map(int, done.stdout.split())
    assert norm >= 1 and attention >= 50  # multiplies and adds of four floats
