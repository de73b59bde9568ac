"""Models of the forms that CTranslate2 and OpenVINO read, from the safetensors of models.py (which runs this):
convert.py DIR SHAPE KINDS [--head]. Its interpreter has ctranslate2, optimum-intel and nncf; missing ones are made."""
import os, shutil, subprocess, sys

root, shape, kinds = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
CT2 = {"f32": "float32", "bf16": "bfloat16", "q8": "int8"}
OV = {"f32": "fp32", "q8": "int8", "q4": "int4"}


def openvino(source, out, form, task):
    if os.path.exists(f"{out}/openvino_model.bin"):
        return
    print(out, flush=True)
    shutil.rmtree(f"{out}.new", ignore_errors=True)
    code = "import sys; from optimum.commands.optimum_cli import main; sys.argv[0] = 'optimum-cli'; main()"
    subprocess.run([sys.executable, "-c", code, "export", "openvino", "-m", source, "--task", task, "--weight-format", form,
                    f"{out}.new"], check=True, stdout=subprocess.DEVNULL)
    os.replace(f"{out}.new", out)


def main():
    for kind in kinds:
        out = f"{root}/{shape}-ct2-{kind}"
        if kind in CT2 and not os.path.exists(f"{out}/model.bin"):
            print(out, flush=True)
            from ctranslate2.converters import TransformersConverter
            TransformersConverter(f"{root}/{shape}-f32").convert(out, quantization=CT2[kind], force=True)
        if kind in OV:
            openvino(f"{root}/{shape}-f32", f"{root}/{shape}-ov-{kind}", OV[kind], "text-generation-with-past")
        if kind in ("f32", "q8") and "--head" in sys.argv:
            openvino(f"{root}/{shape}-head-f32", f"{root}/{shape}-ov-{kind}-head", OV[kind], "text-classification")


main()
