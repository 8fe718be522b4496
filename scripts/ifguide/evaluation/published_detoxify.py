"""Where the published Detoxify models come from: their weights, and the model each was tuned from.

The addresses of the weights are those of the package `detoxify`. Their authors publish no checksum;
the digits in a file's name are that of another file, which was renamed when it was saved again.
"""

_RELEASES = "https://github.com/unitaryai/detoxify/releases/download"
_ROBERTA = {
    "hub": "FacebookAI/roberta-base",
    "revision": "e2da8e2f811d1448a5b465c236feacd80ffbac7b",
}
_BERT = {
    "hub": "google-bert/bert-base-uncased",
    "revision": "86b5e0934494bd15c9632b12f734a8a67f723594",
}
_XLM_ROBERTA = {
    "hub": "FacebookAI/xlm-roberta-base",
    "revision": "e73636d4f797dec63c3081bb6ed5c7b0bb3f2089",
}
_ALBERT = {
    "hub": "albert/albert-base-v2",
    "revision": "8e2f239c5f8a2c0f253781ca60135db913e5c80c",
}

PUBLISHED = {
    "unbiased": {
        "url": f"{_RELEASES}/v0.3-alpha/toxic_debiased-c7548aa0.ckpt",
        "base": _ROBERTA,
    },
    "original": {
        "url": f"{_RELEASES}/v0.1-alpha/toxic_original-c1212f89.ckpt",
        "base": _BERT,
    },
    "multilingual": {
        "url": f"{_RELEASES}/v0.4-alpha/multilingual_debiased-0b549669.ckpt",
        "base": _XLM_ROBERTA,
    },
    "unbiased-small": {
        "url": f"{_RELEASES}/v0.1.2/unbiased-albert-c8519128.ckpt",
        "base": _ALBERT,
    },
    "original-small": {
        "url": f"{_RELEASES}/v0.1.2/original-albert-0e1d6498.ckpt",
        "base": _ALBERT,
    },
}
