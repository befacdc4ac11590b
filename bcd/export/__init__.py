"""Finished runs as files of other runtimes, and what such files predict.

`EXPORTERS` names the module of each format; `bcd.export.formats` says what such a module offers.
"""

EXPORTERS = {
    "onnx": "bcd.export.onnx",
    "openvino": "bcd.export.openvino",
    "executorch": "bcd.export.executorch",
}
